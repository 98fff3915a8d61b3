"""One question's adapter added to copies of the weights, for as long as one decode."""

from __future__ import annotations

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from aag_hf.hyperlora.adapter_inputs import AdapterInputs
from aag_hf.hyperlora.adapter_scope import CONTAINER, GeneratedAdapters, Pass
from aag_hf.hyperlora.layer import COMPUTE_DTYPES, HyperLoraLinear, HyperLoraNetworks


@torch.no_grad()
def merged_pass(model: nn.Module, inputs: AdapterInputs) -> Pass | None:
    """A pass that computes with the adapter of one question inside the weights, at the speed of the base model.

    The model's own weights are not touched, so that other threads may use them meanwhile: the pass holds changed
    copies, which take the memory of the adapted layers once more. Making them takes the time of a few tokens.

    Args:
        model: The base model inside a PEFT model with a HyperLoRA adapter.
        inputs: Of one question; all rows of the pass are that question's.

    Returns:
        The pass; ``None`` where the adapters are disabled.

    Raises:
        ValueError: More than one question, or weights that nothing can be added to.
    """
    container: HyperLoraNetworks = getattr(model, CONTAINER)
    if container.disable_adapters:
        return None
    given = inputs.for_networks(container)
    if inputs.questions != 1:
        what = "memory" if inputs.features is None else "features"
        raise ValueError(f"{what} has {inputs.questions} rows: only one question's adapter can be merged at a time.")
    layers = [module for module in model.modules() if isinstance(module, HyperLoraLinear) and module.active_sites]
    for layer in layers:
        _check_mergeable(layer)
    adapters = GeneratedAdapters(container.active_networks, given, container.compute_dtype)
    return Pass(adapters, 1, merged={layer.name: _merged_weight(layer, adapters) for layer in layers})


def _check_mergeable(layer: HyperLoraLinear) -> None:
    base = layer.base_layer
    remedy = "leave merge_adapter out."
    if isinstance(base, BaseTunerLayer):
        raise ValueError(f"{layer.name}: an adapter cannot be merged over another adapter: {remedy}")
    if not isinstance(base, (nn.Linear, Conv1D)) or base.weight.dtype not in COMPUTE_DTYPES:
        raise ValueError(f"{layer.name}: an adapter cannot be merged into a {type(base).__name__}: {remedy}")
    if base.weight.is_meta:
        raise ValueError(
            f"{layer.name}: an adapter cannot be merged into weights that are offloaded, which each pass loads anew: "
            + remedy
        )


def _merged_weight(layer: HyperLoraLinear, adapters: GeneratedAdapters) -> torch.Tensor:
    base = layer.base_layer
    merged = base.weight.T if isinstance(base, Conv1D) else base.weight
    for name, site in layer.active_sites.items():
        for a, b in adapters.matrices(name, site):
            a, b = (matrix[0].to(merged.device, merged.dtype) for matrix in (a, b))
            merged = torch.addmm(merged, b.T, a.T, alpha=layer.scaling[name])
    return merged
