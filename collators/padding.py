"""Rows of unequal length as tensors. Masks go by length, since padding and end of text can be the same token."""

from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Any

import torch

IGNORE_INDEX = -100


def pad(rows: Sequence[Sequence[int]], value: int, side: str = "right", multiple_of: int | None = None) -> torch.Tensor:
    """Pad rows to the longest: ``(len(rows), tokens)``, int64.

    Args:
        rows: Token ids.
        value: The value of padding.
        side: ``"left"`` or ``"right"``.
        multiple_of: Round the length up to a multiple of this.
    """
    length = max(map(len, rows))
    if multiple_of:
        length = -(-length // multiple_of) * multiple_of
    gaps = [[value] * (length - len(row)) for row in rows]
    padded = [[*gap, *row] if side == "left" else [*row, *gap] for row, gap in zip(rows, gaps)]
    return torch.tensor(padded, dtype=torch.long)


def pad_inputs(
    rows: Sequence[Sequence[int]], pad_token_id: int | None, side: str, multiple_of: int | None = None
) -> dict[str, torch.Tensor]:
    """`input_ids`, `attention_mask` and, for left padding, the shifted `position_ids`; each ``(batch, tokens)``."""
    inputs = {
        "input_ids": pad(rows, pad_token_id or 0, side, multiple_of),
        "attention_mask": pad([[1] * len(row) for row in rows], 0, side, multiple_of),
    }
    if side == "left":
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
    return inputs


def pack(prompts: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> dict[str, Any]:
    """All prompts and targets of a causal model in one row without padding, and the place where each begins.

    Returns:
        `input_ids`, `labels` and `position_ids`, which begin anew with each prompt, ``(1, tokens)``; by transformers'
        names for Flash Attention `cu_seq_lens_q` and `cu_seq_lens_k`, int32 ``(len(prompts) + 1,)``, and `max_length_q`
        and `max_length_k`.
    """
    rows = [[*prompt, *target] for prompt, target in zip(prompts, targets)]
    labels = [[IGNORE_INDEX] * len(prompt) + list(target) for prompt, target in zip(prompts, targets)]
    bounds = torch.tensor([0, *accumulate(map(len, rows))], dtype=torch.int32)
    longest = max(map(len, rows))
    return {
        "input_ids": torch.tensor([list(chain(*rows))]),
        "labels": torch.tensor([list(chain(*labels))]),
        "position_ids": torch.tensor([list(chain(*(range(len(row)) for row in rows)))]),
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def pad_sequence_to_sequence(
    prompts: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    pad_token_id: int | None,
    is_encoder_decoder: bool,
    multiple_of: int | None = None,
) -> dict[str, torch.Tensor]:
    """Model inputs and `labels` of prompts and their targets.

    A causal model reads prompt and target in one row, padded on the left. So targets end at the same position in every
    row, and logits are needed for the last positions only. Labels of prompts and padding are -100.

    Args:
        prompts: The token ids of each row.
        targets: The token ids of each row, the end token included.
        pad_token_id: The model's token of padding.
        is_encoder_decoder: Give prompts to the encoder and targets to the decoder.
        multiple_of: Round lengths up to a multiple of this.
    """
    if is_encoder_decoder:
        inputs = pad_inputs(prompts, pad_token_id, "right", multiple_of)
        return {**inputs, "labels": pad(targets, IGNORE_INDEX, "right", multiple_of)}
    rows = [[*prompt, *target] for prompt, target in zip(prompts, targets)]
    labels = [[IGNORE_INDEX] * len(prompt) + list(target) for prompt, target in zip(prompts, targets)]
    inputs = pad_inputs(rows, pad_token_id, "left", multiple_of)
    return {**inputs, "labels": pad(labels, IGNORE_INDEX, "left", multiple_of)}
