"""Decoding with features: one scope for a whole `generate`, and one question's adapter merged into the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from aag_hf.hyperlora.hypernetwork import Matrices, Site
from aag_hf.hyperlora.layer import HyperLoraLinear, HyperLoraNetworks
from aag_hf.hyperlora.state import CONTAINER, AdapterState, adapter_scope, check_features, check_rows, installed


class _InWeights:
    """The state of layers whose weights hold their adapter already."""

    def matrices(self, adapter_name: str, site: Site) -> list[Matrices]:
        return []


@contextmanager
def merged_adapter(model: nn.Module, features: torch.Tensor) -> Iterator[None]:
    """Decode one question at the speed of the base model: its adapter is added to the weights, and gone on leaving.

    The weights of before come back as they were, bit for bit, also after an exception: they are put aside and not
    computed back, which takes the memory of the adapted layers once more. Models that share them are not touched. It
    pays for long answers: merging reads and writes every adapted weight once.

    Args:
        model: The base model inside a PEFT model with a HyperLoRA adapter.
        features: ``(1, feature_dim)``; all rows in the scope are that question's.

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
    layers = [module for module in model.modules() if isinstance(module, HyperLoraLinear)]
    for base in (layer.get_base_layer() for layer in layers):
        if not isinstance(base, nn.Linear) or not base.weight.is_floating_point():
            raise ValueError(f"an adapter cannot be merged into a {type(base).__name__}: leave merge_adapter out.")
    with torch.no_grad():
        state = AdapterState(container.hyperlora_net, container.active_adapters, features, container.compute_dtype)
        merged = [_merged_weight(layer, state) for layer in layers]
    before = [layer.get_base_layer().weight for layer in layers]
    try:
        for layer, weight in zip(layers, merged):
            layer.get_base_layer().weight = nn.Parameter(weight, requires_grad=False)
        with installed(model, _InWeights()):
            yield
    finally:
        for layer, weight in zip(layers, before):
            layer.get_base_layer().weight = weight


def _merged_weight(layer: HyperLoraLinear, state: AdapterState) -> torch.Tensor:
    weight = layer.get_base_layer().weight
    for name in layer.active_adapters:
        if name in layer.sites:
            for a, b in state.matrices(name, layer.sites[name]):
                a, b = (matrix[0].to(weight.device, weight.dtype) for matrix in (a, b))
                weight = torch.addmm(weight, b.T, a.T, alpha=layer.scaling[name])
    return weight


def generate_with_features(
    model: nn.Module,
    *args: Any,
    features: torch.Tensor | None = None,
    merge_adapter: bool = False,
    **kwargs: Any,
) -> torch.Tensor:
    """The base model's `generate` with one scope for the whole decode.

    `generate` runs an encoder without entering the model's forward, and refuses arguments it does not know.

    Args:
        features: ``(batch, feature_dim)``, a vector a question.
        merge_adapter: For one question: see `merged_adapter`.

    Raises:
        ValueError: Features that do not fit the inputs or the adapter, or cannot be merged.
    """
    if features is None:
        if merge_adapter:
            raise ValueError("merge_adapter needs features: they make the adapter to merge.")
        return type(model).generate(model, *args, **kwargs)
    check_rows(features, args[0] if args else kwargs.get("input_ids", kwargs.get("inputs")))
    scope = merged_adapter if merge_adapter else adapter_scope
    with torch.no_grad(), scope(model, features):
        return type(model).generate(model, *args, **kwargs)
