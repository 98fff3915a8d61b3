"""Whitening: statistics fitted once on the training questions, used everywhere."""

import torch

from aag_hf.errors import InputError

# Relative to the largest eigenvalue; directions below it are rounding noise that whitening would blow up.
SMALLEST_EIGENVALUE = 1e-9


def fit_whitening(vectors: torch.Tensor, components: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean μ and matrix W with which ``(x − μ) W`` has identity covariance (paper, section 3.2).

    With the covariance ``C = U Λ Uᵀ`` over all rows, ``W = U Λ^(-1/2)``, cut to the largest eigenvalues.

    Args:
        vectors: ``(n, d)``, one row for each training vector.
        components: How many columns of W to keep.

    Returns:
        μ ``(d,)`` and W ``(d, components)``, in float64.

    Raises:
        InputError: `vectors` spans fewer than `components` directions.
    """
    vectors = vectors.double()
    mean = vectors.mean(dim=0)
    centred = vectors - mean
    eigenvalues, eigenvectors = torch.linalg.eigh(centred.T @ centred / len(vectors))
    eigenvalues, eigenvectors = eigenvalues.flip(0), eigenvectors.flip(1)
    usable = int((eigenvalues > SMALLEST_EIGENVALUE * eigenvalues[0]).sum())
    if usable < components:
        raise InputError(
            f"feature_dim is {components}, but the {len(vectors)} training vectors of width {vectors.shape[1]} span "
            f"only {usable} directions: use more questions or a feature_dim of at most {usable}."
        )
    return mean, eigenvectors[:, :components] * eigenvalues[:components].rsqrt()
