"""Hidden states of a frozen language model, as both encoders read them."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

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
    blocks = getattr(model, "layers", None)
    layers = len(blocks) if isinstance(blocks, nn.ModuleList) else model.config.num_hidden_layers
    number = round(layer * layers) if isinstance(layer, float) else layer
    if number > layers:
        raise InputError(f"layer is {number}, the backbone has {layers}.")
    adapters = getattr(backbone, "hypernetworks", None)
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
    with nullcontext() if adapters is None else adapters.off():
        if isinstance(blocks, nn.ModuleList) and number < layers:
            return _what_enters(model, blocks, number, inputs).float()
        return model(**inputs, output_hidden_states=True).hidden_states[number].float()


class _Reached(Exception):
    """The block whose input is asked for was reached; what lies above it need not run."""

    def __init__(self, states: torch.Tensor):
        self.states = states


def _what_enters(model: nn.Module, blocks: nn.ModuleList, number: int, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """What enters block `number`. The blocks below it are shared; it is itself a copy, so that other threads run it."""

    def stop(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        raise _Reached(hidden_states)

    last = copy.copy(blocks[number])
    last.forward = stop
    try:
        with_modules(model, layers=nn.ModuleList([*blocks[:number], last]))(**inputs, use_cache=False)
    except _Reached as reached:
        return reached.states
    raise AssertionError("a model whose blocks are not run in their order")


def with_modules(module: nn.Module, **submodules: nn.Module) -> Any:
    """The same module and weights, with some submodules replaced; `module` stays as it is."""
    other = copy.copy(module)
    other.__dict__["_modules"] = module._modules | submodules
    return other


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
    """The items in their order, `size` at a time.

    Raises:
        InputError: `size` is less than 1.
    """
    if size < 1:
        raise InputError(f"batch_size is {size}: expected 1 or more.")
    for start in range(0, len(items), size):
        yield items[start : start + size]
