"""The base model's class with `features` and `memory`: they enter around `forward` and `generate`, nowhere else."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from aag_hf.hyperlora.adapter_inputs import AdapterInputs
from aag_hf.hyperlora.adapter_scope import CONTAINER, CheckpointWithPass, enter_call, make_pass
from aag_hf.hyperlora.merging import merged_pass


def adapt(model: nn.Module) -> None:
    """Let `model` take features and memories: its class becomes a subclass of what it was."""
    base_class: type = type(model)
    model.__class__ = adapted_class(base_class)


def restore(model: nn.Module) -> None:
    """Give `model` the class it had before `adapt`."""
    for module in model.modules():
        function = getattr(module, "_gradient_checkpointing_func", None)
        if isinstance(function, CheckpointWithPass):
            module._gradient_checkpointing_func = function.checkpoint
    model.__class__ = type(model).__mro__[1]


@functools.cache
def adapted_class(base_class: type) -> type:
    """A subclass of `base_class`, under its name, whose calls take ``features``, ``memory`` and ``documents``."""

    class AdaptedModel(base_class):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            value = enter_call(self, AdapterInputs.taken_from(kwargs), args, kwargs)
            return getattr(self, CONTAINER).current.run(value, super().__call__, *args, **kwargs)

        def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
            # By its name pickle would find the base class.
            return _empty, (base_class,), self.__getstate__()

        if hasattr(base_class, "generate"):

            @functools.wraps(base_class.generate)
            def generate(self, *args: Any, merge_adapter: bool = False, **kwargs: Any) -> Any:
                given = AdapterInputs.taken_from(kwargs)
                return generate_with_adapters(self, super().generate, given, merge_adapter, args, kwargs)

    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(AdaptedModel, name, getattr(base_class, name))
    return AdaptedModel


def _empty(base_class: type) -> nn.Module:
    return object.__new__(adapted_class(base_class))


def generate_with_adapters(
    model: nn.Module,
    generate: Callable[..., Any],
    given: AdapterInputs | None,
    merge_adapter: bool,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """The base model's `generate` with one pass for the whole decode.

    `generate` runs an encoder without entering the model's forward, and refuses arguments it does not know.

    Args:
        model: The base model.
        generate: Its own `generate`.
        given: What the adapters are made from, one for each question.
        merge_adapter: For one question, in any number of rows: see [`~aag_hf.hyperlora.merging.merged_pass`].
        args: What else `generate` gets.
        kwargs: The same, by name.

    Raises:
        ValueError: Features or memories that do not fit the inputs or the adapter, or cannot be merged.
    """
    if given is None:
        if merge_adapter:
            raise ValueError("merge_adapter needs features or a memory: they make the adapter to merge.")
        return generate(*args, **kwargs)
    if not merge_adapter:
        inputs = [*args[:1], *(kwargs.get(name) for name in ("input_ids", "inputs", "inputs_embeds"))]
        given.check_rows(next((tensor for tensor in inputs if isinstance(tensor, torch.Tensor)), None))
    with torch.no_grad():
        value = (merged_pass if merge_adapter else make_pass)(model, given)
        return getattr(model, CONTAINER).current.run(value, generate, *args, **kwargs)
