"""Hidden states of a frozen language model, as both encoders read them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel

from aag_hf.errors import InputError

Item = TypeVar("Item")


def hidden_states(
    backbone: PreTrainedModel, input_ids: torch.Tensor, attention_mask: torch.Tensor, layer: float | int
) -> torch.Tensor:
    """Float32 states ``(batch, tokens, d)`` behind one layer of a causal model, or of an encoder.

    HyperLoRA adapters of the model are off meanwhile: it may be the very model that is trained.

    Args:
        backbone: A causal or encoder-decoder language model, with or without its head.
        input_ids: ``(batch, tokens)``, padded on the right.
        attention_mask: ``(batch, tokens)``.
        layer: A share of the depth as a float, or a layer's number as an int.

    Raises:
        InputError: The model has no such layer.
    """
    model = backbone.get_encoder() if backbone.config.is_encoder_decoder else backbone.base_model
    adapters = getattr(backbone, "hypernetworks", None)
    with nullcontext() if adapters is None else adapters.off():
        states = model(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True).hidden_states
    number = round(layer * (len(states) - 1)) if isinstance(layer, float) else layer
    if number >= len(states):
        raise InputError(f"layer is {number}, the backbone has {len(states) - 1}.")
    return states[number].float()


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Switch dropout off, for as long as this lasts."""
    training = model.training
    if training:
        model.eval()
    try:
        yield
    finally:
        if training:
            model.train()


def in_groups(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """The items in their order, `size` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
