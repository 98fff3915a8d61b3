"""Checks that a model keeps packed rows apart."""

from typing import Any

import torch
from torch import nn

from aag_hf.collators.padding import IGNORE_INDEX
from aag_hf.errors import InputError
from aag_hf.trainers.answer_logits import PACKED, answer_logits, innermost


def check_rows_apart(model: nn.Module, inputs: dict[str, Any]) -> None:
    """Refuse a model whose packed rows read the rows before them.

    Recurrent models do so, and so do attentions of transformers that ignore `position_ids`. No error would tell. Two
    passes do: other tokens in the first row must not change the output after the first token of the second row, where a
    model would remember the row before best.

    Args:
        model: A causal language model, wrapped or not.
        inputs: At least two rows, see [`~aag_hf.collators.padding.pack`].

    Raises:
        InputError: The model does not keep packed rows apart.
    """
    ids, second = inputs["input_ids"], int(inputs[PACKED][1])
    others, labels = ids.clone(), torch.full_like(ids, IGNORE_INDEX)
    others[:, :second] = ids[0, -1]
    labels[:, second + 1] = ids[:, second + 1]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            changed = {"labels": labels, "input_ids": others}
            before, after = (answer_logits(model, inputs | part)[0] for part in ({"labels": labels}, changed))
    finally:
        model.train(training)
    # Rows that are kept apart differ at most by rounding, on devices that add up in any order.
    if (after - before).abs().max() > 0.01 * before.std():
        raise InputError(
            f"{type(innermost(model)).__name__} lets a packed row read the rows before it: leave padding_free off."
        )
