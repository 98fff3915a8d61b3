"""Whitening: statistics fitted once on the training questions, used everywhere."""

from collections.abc import Iterable

import torch

from aag_hf.errors import InputError

# Relative to the largest eigenvalue; directions below it are rounding noise that whitening would blow up.
SMALLEST_EIGENVALUE = 1e-9


def fit_whitening(batches: Iterable[torch.Tensor], components: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean μ and matrix W with which ``(x − μ) W`` has identity covariance (paper, section 3.2).

    With the covariance ``C = U Λ Uᵀ`` over all rows, ``W = U Λ^(-1/2)``, cut to the largest eigenvalues.

    Args:
        batches: ``(n, d)`` each, one row for each training vector; they are asked for one after the other.
        components: How many columns of W to keep.

    Returns:
        μ ``(d,)`` and W ``(d, components)``, in float64.

    Raises:
        InputError: There are no vectors, or they span fewer than `components` directions.
    """
    count, mean, scatter = _moments(batches)
    if not count:
        raise InputError("no questions to fit the statistics to: give the training questions.")
    eigenvalues, eigenvectors = torch.linalg.eigh(scatter / count)
    eigenvalues, eigenvectors = eigenvalues.flip(0), eigenvectors.flip(1)
    usable = int((eigenvalues > SMALLEST_EIGENVALUE * eigenvalues[0]).sum())
    if usable < components:
        raise InputError(
            f"feature_dim is {components}, but the {count} training vectors of width {len(mean)} span only {usable} "
            f"directions: use more questions or a feature_dim of at most {usable}."
        )
    return mean, eigenvectors[:, :components] * eigenvalues[:components].rsqrt()


def _moments(batches: Iterable[torch.Tensor]) -> tuple[int, torch.Tensor, torch.Tensor]:
    """How many rows there are, their mean ``(d,)``, and the sum ``(d, d)`` of their products about it."""
    count, mean, scatter = 0, torch.zeros(()), torch.zeros(())
    for batch in batches:
        vectors = batch.double()
        own_mean = vectors.mean(dim=0)
        centred = vectors - own_mean
        own_scatter = centred.T @ centred
        if count:
            # Each about its own mean, which loses no digits where means are large; then about the common one.
            shift = own_mean - mean
            total = count + len(vectors)
            scatter += own_scatter + torch.outer(shift, shift) * (count * len(vectors) / total)
            mean += shift * (len(vectors) / total)
        else:
            mean, scatter = own_mean, own_scatter
        count += len(vectors)
    return count, mean, scatter
