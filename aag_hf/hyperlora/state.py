"""The adapters of one forward pass, or of one `generate`: made from features on entry, gone on exit."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import nn

from aag_hf.hyperlora.cache import AdapterCache
from aag_hf.hyperlora.hypernetwork import HyperNetwork, Matrices, Site
from aag_hf.hyperlora.layer import HyperLoraLinear, HyperLoraNetworks
from aag_hf.hyperlora.shared_inputs import SharedShrinks
from aag_hf.kernels.hyper_lora.dispatch import shares_shrinks

CONTAINER = "hypernetworks"


class AdapterSource(Protocol):
    """Where a layer finds its matrices, and whose rows are whose if they are packed."""

    cu_seqlens: torch.Tensor | None

    def matrices(self, adapter_name: str, site: Site) -> list[Matrices]: ...

    def shrunk(self, adapter_name: str, site: Site, x: torch.Tensor) -> tuple[torch.Tensor, ...] | None: ...


class GeneratedAdapters:
    """The A and B of every adapter for the questions of one pass, made at once.

    Args:
        matrices: What each hypernetwork made of the questions' features, by adapter name.
        sites: The hypernetworks' sites, by adapter name.
        dtype: What the layers compute in: all matrices are cast at once, not at every use. ``None`` leaves them.
    """

    cu_seqlens: torch.Tensor | None = None

    def __init__(
        self,
        matrices: dict[str, dict[str, list[Matrices]]],
        sites: dict[str, dict[str, Site]],
        dtype: torch.dtype | None,
    ):
        # Unbound, not indexed: the gradient of an index is as large as all sites together, once for each site.
        self._by_site = {
            name: {kind: [(a.to(dtype).unbind(), b.to(dtype).unbind()) for a, b in pairs] for kind, pairs in of.items()}
            for name, of in matrices.items()
        }
        self._shared = {name: SharedShrinks(of) for name, of in sites.items()}

    def matrices(self, adapter_name: str, site: Site) -> list[Matrices]:
        """A ``(batch, d_in, r)`` and B ``(batch, r, d_out)`` of one site; a static part follows, with a batch of 1."""
        return [(a[site.position], b[site.position]) for a, b in self._by_site[adapter_name][site.kind]]

    def shrunk(self, adapter_name: str, site: Site, x: torch.Tensor) -> tuple[torch.Tensor, ...] | None:
        """``x a`` of each pair, ``(batch, rows of each, r)``, where another layer reads `x` too; else ``None``."""
        # Nobody can tell whether a tensor of inference mode was changed, and to find out breaks a compiled graph.
        if torch.compiler.is_compiling() or x.is_inference():
            return None
        if not shares_shrinks(x.device.type, torch.is_grad_enabled()):
            return None
        # Not kept there: a cycle would keep the adapters until the collector finds it.
        return self._shared[adapter_name].shrunk(site, x, functools.partial(self.matrices, adapter_name))


class AdaptersOnDemand:
    """The same, each site's made where they are used.

    Activation checkpointing needs it: a checkpointed block recomputes what it uses, and a reentrant checkpoint
    backpropagates through its closure once per block, which only leaf tensors survive.
    """

    cu_seqlens: torch.Tensor | None = None

    def __init__(self, networks: dict[str, HyperNetwork], features: torch.Tensor):
        self._networks, self._features = networks, features

    def matrices(self, adapter_name: str, site: Site) -> list[Matrices]:
        pairs = self._networks[adapter_name].matrices(self._features, site.kind, site.position)
        return [(a[0], b[0]) for a, b in pairs]

    def shrunk(self, adapter_name: str, site: Site, x: torch.Tensor) -> None:
        """Nothing is shared: a block that is recomputed must repeat what it did the first time."""


def generate_adapters(
    container: HyperLoraNetworks, features: torch.Tensor, dtype: torch.dtype | None, cache: AdapterCache | None = None
) -> GeneratedAdapters:
    """Run the hypernetworks of all active adapters, for those questions that `cache` does not hold."""
    networks = container.active_networks
    matrices = {
        name: network(features) if cache is None else cache.adapters(network, features)
        for name, network in networks.items()
    }
    return GeneratedAdapters(matrices, {name: net.sites for name, net in networks.items()}, dtype)


@contextmanager
def adapter_scope(
    model: nn.Module,
    features: torch.Tensor,
    adapter_cache: AdapterCache | None = None,
    cu_seqlens: torch.Tensor | None = None,
) -> Iterator[None]:
    """Adapters made from `features` for every HyperLoRA layer of the base model `model`, until the scope is left.

    With `cu_seqlens`, int32 ``(batch + 1,)``, each question's rows lie between two of these bounds.
    """
    container: HyperLoraNetworks = getattr(model, CONTAINER)
    if container.disable_adapters:
        yield
        return
    check_features(container, features)
    checkpointed = [m for m in model.modules() if getattr(m, "gradient_checkpointing", False)] if model.training else []
    state: AdapterSource
    if checkpointed:
        state = AdaptersOnDemand(container.active_networks, features)
    else:
        # A CPU decodes with adapters in single precision; see `computes_in_single_precision`.
        decodes_on_cpu = features.device.type == "cpu" and not torch.is_grad_enabled()
        dtype = None if decodes_on_cpu else container.compute_dtype
        state = generate_adapters(container, features, dtype, adapter_cache)
    state.cu_seqlens = cu_seqlens
    functions = [module._gradient_checkpointing_func for module in checkpointed]
    for module, function in zip(checkpointed, functions):
        # Recomputation calls the block after this scope has ended: it must find this pass's state, no other.
        module._gradient_checkpointing_func = functools.partial(_checkpoint_with_state, function, module, state)
    try:
        with installed(model, state):
            yield
    finally:
        for module, function in zip(checkpointed, functions):
            module._gradient_checkpointing_func = function


@contextmanager
def hyperlora_features(model: nn.Module, features: torch.Tensor) -> Iterator[None]:
    """Scope for calls that enter below the model's own forward or generate: the encoder alone, a custom loop.

    Args:
        model: A PEFT model with a HyperLoRA adapter, or its base model.
        features: ``(batch, feature_dim)``. Rows that reach a layer may be any multiple of `batch`, sample-major.

    Raises:
        ValueError: The model has no HyperLoRA adapter, or the features have the wrong shape.

    Example:

    ```python
    with hyperlora_features(model, features):
        encoder_outputs = model.get_base_model().encoder(input_ids=input_ids)
    ```
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not hasattr(base, CONTAINER):
        raise ValueError(f"{type(base).__name__} has no HyperLoRA adapter: add one with get_peft_model first.")
    with adapter_scope(base, features):
        yield


def check_features(container: HyperLoraNetworks, features: torch.Tensor) -> None:
    """Refuse features that no active hypernetwork can read."""
    for name, network in container.active_networks.items():
        expected = network.feature_dim
        if features.dim() != 2 or features.shape[1] != expected:
            raise ValueError(
                f"features has shape {tuple(features.shape)}, adapter {name!r} expects (batch, {expected}): use the "
                "question encoder this adapter was trained with."
            )


def check_rows(features: torch.Tensor, inputs: torch.Tensor | None, cu_seqlens: torch.Tensor | None = None) -> None:
    """Refuse a batch whose number of feature vectors is not its number of questions."""
    if inputs is None:
        return
    rows = inputs.shape[0] if cu_seqlens is None else len(cu_seqlens) - 1
    if rows != features.shape[0]:
        raise ValueError(
            f"features has {features.shape[0]} rows, the input has {rows}: pass one feature vector per question."
        )


def enter_forward(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Forward pre-hook of the base model: takes `features` out of the arguments and opens the scope."""
    features = kwargs.pop("features", None)
    scope: AbstractContextManager[None] = nullcontext()
    if features is not None:
        cu_seqlens = kwargs.get("cu_seq_lens_q")
        check_rows(features, args[0] if args else kwargs.get("input_ids", kwargs.get("inputs_embeds")), cu_seqlens)
        scope = adapter_scope(model, features, cu_seqlens=cu_seqlens)
    scope.__enter__()
    # A linked list, not a list: DataParallel's replicas share every mutable object of __dict__ across threads.
    model.__dict__["_hyperlora_scope"] = (scope, model.__dict__.get("_hyperlora_scope"))
    return args, kwargs


def exit_forward(model: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    """Forward hook of the base model, called after an exception too: closes the scope."""
    entered = model.__dict__.get("_hyperlora_scope")
    if entered is not None:
        scope, model.__dict__["_hyperlora_scope"] = entered
        scope.__exit__(None, None, None)


def _checkpoint_with_state(
    function: Callable[..., Any], block: nn.Module, state: AdapterSource, run: Callable[..., Any], *args: Any, **kw: Any
) -> Any:
    def run_with_state(*run_args: Any, **run_kwargs: Any) -> Any:
        with installed(block, state):
            return run(*run_args, **run_kwargs)

    return function(run_with_state, *args, **kw)


@contextmanager
def installed(module: nn.Module, state: AdapterSource) -> Iterator[None]:
    """`state` in every HyperLoRA layer inside `module`, until the scope is left."""
    layers = [layer for layer in module.modules() if isinstance(layer, HyperLoraLinear)]
    previous = [layer.state for layer in layers]
    for layer in layers:
        layer.state = state
    try:
        yield
    finally:
        for layer, state_before in zip(layers, previous):
            layer.state = state_before
