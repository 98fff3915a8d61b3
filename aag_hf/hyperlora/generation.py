"""Decoding with features: one scope for a whole `generate`, and one question's adapter merged into the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from aag_hf.hyperlora.cache import AdapterCache
from aag_hf.hyperlora.layer import COMPUTE_DTYPES, HyperLoraLinear, HyperLoraNetworks
from aag_hf.hyperlora.spare_memory import SpareMemory
from aag_hf.hyperlora.state import (
    CONTAINER,
    GeneratedAdapters,
    adapter_scope,
    check_features,
    check_rows,
    generate_adapters,
)


@contextmanager
def merged_adapter(
    model: nn.Module, features: torch.Tensor, adapter_cache: AdapterCache | None = None
) -> Iterator[None]:
    """Decode one question at the speed of the base model: its adapter is added to the weights, and gone on leaving.

    The weights of before come back as they were, bit for bit, also after an exception: they are put aside and not
    computed back, which takes the memory of the adapted layers once more. On a CPU that memory is kept for the next
    merge, as long as the model lives: copy merged weights that you want to keep. Models that share the weights are not
    touched. It takes the time of one to three tokens, the first time of three to seven.

    Args:
        model: The base model inside a PEFT model with a HyperLoRA adapter.
        features: ``(1, feature_dim)``; all rows in the scope are that question's.
        adapter_cache: Where the adapter may be found.

    Raises:
        ValueError: More than one question, or weights that nothing can be added to.
    """
    container: HyperLoraNetworks = getattr(model, CONTAINER)
    if container.disable_adapters:
        yield
        return
    check_features(container, features)
    if features.shape[0] != 1:
        raise ValueError(f"features has {features.shape[0]} rows: only one question's adapter can be merged at a time.")
    places = [
        (parent, name, layer)
        for parent in model.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, HyperLoraLinear)
    ]
    layers = [layer for _, _, layer in places]
    for layer in layers:
        base = layer.get_base_layer()
        if not isinstance(base, nn.Linear) or base.weight.dtype not in COMPUTE_DTYPES:
            raise ValueError(f"an adapter cannot be merged into a {type(base).__name__}: leave merge_adapter out.")
        if getattr(layer.base_layer, "lora_magnitude_vector", None):
            raise ValueError("an adapter cannot be merged below DoRA, which would scale it: leave merge_adapter out.")
        if base.weight.is_meta:
            raise ValueError(
                "an adapter cannot be merged into weights that are offloaded, which each pass loads anew: leave "
                "merge_adapter out."
            )
    with torch.no_grad():
        state = generate_adapters(container, features, container.compute_dtype, adapter_cache)
        merged = [_merged_weight(layer, state, container.spare_memory) for layer in layers]
    before = [layer.get_base_layer().weight for layer in layers]
    try:
        for (parent, name, layer), weight in zip(places, merged):
            layer.get_base_layer().weight = nn.Parameter(weight, requires_grad=False)
            # A layer with nothing left to add would still be called for every token.
            setattr(parent, name, layer.base_layer)
        yield
    finally:
        for (parent, name, layer), weight in zip(places, before):
            layer.get_base_layer().weight = weight
            setattr(parent, name, layer)
        container.spare_memory.keep(weight for weight, old in zip(merged, before) if weight is not old)


def _merged_weight(layer: HyperLoraLinear, state: GeneratedAdapters, spare_memory: SpareMemory) -> torch.Tensor:
    weight = layer.get_base_layer().weight
    names = [name for name in layer.active_adapters if name in layer.sites]
    pairs = [(*pair, layer.scaling[name]) for name in names for pair in state.matrices(name, layer.sites[name])]
    merged = spare_memory.take(weight) if pairs else weight
    for a, b, scale in pairs:
        a, b = (matrix[0].to(weight.device, weight.dtype) for matrix in (a, b))
        weight = torch.addmm(weight, b.T, a.T, alpha=scale, out=merged)
    return merged


def generate_with_features(
    model: nn.Module,
    *args: Any,
    features: torch.Tensor | None = None,
    merge_adapter: bool = False,
    adapter_cache: AdapterCache | None = None,
    **kwargs: Any,
) -> torch.Tensor:
    """The base model's `generate` with one scope for the whole decode.

    `generate` runs an encoder without entering the model's forward, and refuses arguments it does not know.

    Args:
        features: ``(batch, feature_dim)``, a vector a question.
        merge_adapter: For one question, in any number of rows: see `merged_adapter`.
        adapter_cache: Holds the adapters of questions that may come again.

    Raises:
        ValueError: Features that do not fit the inputs or the adapter, or cannot be merged.
    """
    if features is None:
        if merge_adapter:
            raise ValueError("merge_adapter needs features: they make the adapter to merge.")
        return type(model).generate(model, *args, **kwargs)
    if not merge_adapter:
        check_rows(features, args[0] if args else kwargs.get("input_ids", kwargs.get("inputs")))
    scope = merged_adapter if merge_adapter else adapter_scope
    with torch.no_grad(), scope(model, features, adapter_cache):
        return type(model).generate(model, *args, **kwargs)
