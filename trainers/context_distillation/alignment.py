"""The layers, tokens and rows of student and teacher that the alignment losses compare."""

from typing import Literal

import torch
from torch import Tensor

from aag_hf.errors import InputError

Alignment = Literal["question", "position"]
Layers = Literal["all", "select"]


def selected_layers(num_layers: int, layers: Layers) -> list[int]:
    """Which of ``num_layers`` to align: ``"all"``, or ``"select"`` for the first, the middle and the last one.

    Raises:
        InputError: `layers` is neither of them.
    """
    if layers == "all":
        return list(range(num_layers))
    if layers == "select":
        return sorted({0, num_layers // 2, num_layers - 1})
    raise InputError(f"layers is {layers!r}: choose 'all' or 'select'.")


def gather_tokens(values: Tensor, mask: Tensor, dim: int = 1) -> tuple[Tensor, Tensor]:
    """Move each row's unmasked tokens to the front and cut the rest off.

    This brings the question tokens of student and teacher side by side, though their positions differ. Attentions are
    gathered along both token axes.

    Args:
        values: ``(rows, …)`` with ``tokens`` at axis ``dim``.
        mask: ``(rows, tokens)``, true at the tokens to keep.

    Returns:
        ``values`` with ``kept`` at axis ``dim``, the largest count of any row, and its (rows, kept) mask.
    """
    kept = int(mask.sum(-1).max()) if mask.numel() else 0
    order = mask.long().argsort(dim=-1, descending=True, stable=True)[:, :kept]
    gathered = values.movedim(dim, 1)[torch.arange(len(order), device=order.device).unsqueeze(1), order]
    return gathered.movedim(1, dim), mask.gather(1, order).bool()


def average_passages(values: Tensor, present: Tensor, batch: int) -> Tensor:
    """Mean of a teacher's sample-major (batch · passages, …) rows over the passages of each sample.

    Args:
        values: Hidden states or attentions of gathered question tokens.
        present: ``(batch · passages,)``, false at padding passages, which do not count.
        batch: The number of samples.

    Returns:
        ``(batch, …)``; zeros for a sample without any passage.
    """
    weight = present.unflatten(0, (batch, -1)).to(torch.promote_types(values.dtype, torch.float32))
    weight = weight / weight.sum(-1, keepdim=True).clamp_min(1)
    return torch.einsum("bp,bp...->b...", weight, values.to(weight.dtype).unflatten(0, (batch, -1)))
