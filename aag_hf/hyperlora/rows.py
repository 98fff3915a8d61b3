"""Whether a layer's rows are the batch's rows in order, so that each finds the adapter of its own question."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from enum import Enum
from itertools import chain

import torch
from torch import nn

from aag_hf.hyperlora.adapter_scope import Pass, model_has_decoder

# Batch and tokens of the trial: no multiple of one is a multiple of the other below their product.
BATCH, TOKENS = 5, 3


class Rows(Enum):
    """What a trial pass showed of a layer's input."""

    UNTRIED = "the model was not tried"
    BATCH_FIRST = "the batch's rows, or all of their tokens, in order"
    UNKNOWN = "the trial ended before it reached the layer"
    UNSEEN = "the trial did not reach the layer"


def find_rows(model: nn.Module, names: list[str]) -> Mapping[str, Rows]:
    """Try `model` on text of a batch and a length that differ, and look at the inputs of some layers.

    The trial runs on a copy without memory of its own, on the meta device, and computes nothing.

    Args:
        model: Any model; one that is not a transformers model for text is not tried.
        names: The layers to look at.

    Returns:
        What was found, by name.

    Raises:
        ValueError: A layer's input has the tokens first, not the batch.
    """
    if getattr(model, "main_input_name", None) != "input_ids" or not hasattr(model, "config"):
        return dict.fromkeys(names, Rows.UNTRIED)
    shapes: dict[str, torch.Size] = {}
    ended = _run_trial(model, names, shapes)
    strangers = sorted(name for name, shape in shapes.items() if shape[0] % BATCH)
    if strangers:
        raise ValueError(
            f"{type(model).__name__} gives {', '.join(strangers)} an input whose first dimension is not the batch, so "
            "that rows would get the adapters of other questions: name these layers in exclude_modules."
        )
    missing = Rows.UNSEEN if ended else Rows.UNKNOWN
    return {name: Rows.BATCH_FIRST if name in shapes else missing for name in names}


def check_rows_of_layer(name: str, rows: Rows, x: torch.Tensor, current: Pass) -> None:
    """Refuse an input whose rows cannot be told apart by question.

    Args:
        name: The layer's name.
        rows: What is known of the layer.
        x: Its input.
        current: The pass that runs.

    Raises:
        ValueError: Several questions, and no way to tell which row is whose.
    """
    if current.questions == 1 or rows in (Rows.UNTRIED, Rows.BATCH_FIRST) or current.cu_seqlens is not None:
        return
    if rows is Rows.UNKNOWN and (x.dim() > 2 or x.shape[0] == current.tokens):
        return
    raise ValueError(
        f"{name} does not read the questions' rows in order (input {tuple(x.shape)} for {current.questions} "
        "questions), so that they would get the adapters of other questions: name it in exclude_modules, as experts "
        "and image encoders need it, or ask one question at a time."
    )


@torch.no_grad()
def _run_trial(model: nn.Module, names: list[str], shapes: dict[str, torch.Size]) -> bool:
    """Fill `shapes` with the shape of each layer's input; whether the trial came to its end."""
    memo = {
        id(t): torch.empty(t.shape, dtype=t.dtype, device="meta") for t in chain(model.parameters(), model.buffers())
    }
    try:
        trial = copy.deepcopy(model, memo).eval()
        for parameter in trial.parameters():
            # Kernels for routed experts take no other type.
            if parameter.dtype == torch.float32:
                parameter.data = parameter.data.bfloat16()
        for name in names:
            layer = trial.get_submodule(name)
            layer.enable_adapters(False)
            layer.register_forward_pre_hook(lambda _, inputs, name=name: _note(shapes, name, inputs))
        ids = torch.zeros(BATCH, TOKENS, dtype=torch.long, device="meta")
        trial(input_ids=ids, **({"decoder_input_ids": ids} if model_has_decoder(model) else {}))
    except Exception:  # what a model does with a tensor that has no values is its own affair
        return False
    return True


def _note(shapes: dict[str, torch.Size], name: str, inputs: tuple[torch.Tensor, ...]) -> None:
    shapes.setdefault(name, inputs[0].shape)
