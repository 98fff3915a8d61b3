"""A teacher's states at the tokens that alignment compares, as rows per record on disk and as batches."""

from collections.abc import Collection, Sequence
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from aag_hf.trainers.context_distillation.aligned_terms import ATTENTION, Reading, Tokens, shared_tokens
from aag_hf.trainers.context_distillation.alignment import Layers

PLACES = ("answer", "question")


def state_rows(reading: Reading, names: Collection[str], layers: Layers) -> dict[str, list[Tensor]]:
    """The states of a batch that the terms `names` compare, one tensor per record.

    Args:
        reading: The teacher's reading.
        names: The alignment terms.
        layers: Which layers.

    Returns:
        By ``<place>_<term>``, each record's hidden states ``(tokens, layers, dim)``, or attentions
        ``(tokens · tokens, layers, heads)``.
    """
    rows = {}
    for name in names:
        for place, tokens in shared_tokens(reading, name, layers).items():
            counts = tokens.mask.sum(-1).tolist()
            states = torch.stack(tokens.layers, dim=1)
            rows[f"{place}_{name}"] = [_as_rows(states[i], count, name) for i, count in enumerate(counts)]
    return rows


def batch_states(rows: Sequence[Tensor], name: str) -> tuple[Tensor, Tensor]:
    """Rows of :func:`state_rows` as a padded batch.

    Args:
        rows: One tensor per record.
        name: The alignment term.

    Returns:
        ``(batch, layers, tokens, dim)`` or ``(batch, layers, heads, tokens, tokens)``, and a mask ``(batch, tokens)``.
    """
    states = [_from_rows(record, name) for record in rows]
    counts = [record.shape[-2] for record in states]
    shape = list(states[0].shape)
    for axis in (-1, -2) if name == ATTENTION else (-2,):
        shape[axis] = max(counts)
    padded = states[0].new_zeros(len(states), *shape)
    for target, record in zip(padded, states):
        target[tuple(slice(length) for length in record.shape)] = record
    return padded, torch.arange(max(counts)) < torch.tensor(counts).unsqueeze(1)


def cached_tokens(columns: dict[str, Any], names: Collection[str]) -> dict[str, dict[str, Tokens]]:
    """A batch's tokens by term and place, as far as `columns` hold them.

    Args:
        columns: Tensors of :func:`batch_states` by ``<place>_<term>``, their masks by ``<place>_<term>_mask``.
        names: The alignment terms.
    """
    return {
        name: {
            place: Tokens(list(columns[f"{place}_{name}"].unbind(1)), columns[f"{place}_{name}_mask"])
            for place in PLACES
            if f"{place}_{name}" in columns
        }
        for name in names
    }


def _as_rows(states: Tensor, count: int, name: str) -> Tensor:
    if name == ATTENTION:
        return states[..., :count, :count].permute(2, 3, 0, 1).flatten(0, 1)
    return states[:, :count].transpose(0, 1)


def _from_rows(rows: Tensor, name: str) -> Tensor:
    if name == ATTENTION:
        return rows.unflatten(0, (isqrt(len(rows)), -1)).permute(2, 3, 0, 1)
    return rows.transpose(0, 1)
