"""The adapters of one pass: made on entry, found by the layers in the same thread, gone on exit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from aag_hf.hyperlora.adapter_inputs import AdapterInputs
from aag_hf.hyperlora.document_memory import DocumentMemory
from aag_hf.hyperlora.document_states import DocumentStates
from aag_hf.hyperlora.hypernetwork import HyperNetwork, Matrices, Site

if TYPE_CHECKING:
    from aag_hf.hyperlora.layer import HyperLoraNetworks

CONTAINER = "hypernetworks"
# What each hypernetwork reads, by adapter name.
Given = dict[str, torch.Tensor | DocumentStates]


class AdapterSource(Protocol):
    """Where a layer finds the matrices of its site."""

    def matrices(self, adapter_name: str, site: Site) -> list[Matrices]: ...


@dataclass(frozen=True)
class Pass:
    """What the layers know of the pass that runs.

    Attributes:
        adapters: The adapters of the pass's questions; ``None`` for a pass of the base model as it is.
        questions: How many questions there are.
        cu_seqlens: int32 ``(questions + 1,)``, the bounds of each question's rows, where rows are packed.
        tokens: How many tokens the model was called with, where that is all its layers can see.
        merged: The adapted layers' weights ``(d_out, d_in)`` with the one question's adapter in them, by layer name.
    """

    adapters: AdapterSource | None
    questions: int
    cu_seqlens: torch.Tensor | None = None
    tokens: int | None = None
    merged: dict[str, torch.Tensor] | None = None


class CurrentPass(threading.local):
    """The pass that runs in this thread, for all layers of one base model; other threads see their own.

    A copy of the model starts without a pass.
    """

    value: Pass | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return CurrentPass, ()

    def run(self, value: Pass | None, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call `function` inside the pass `value`; whatever it raises, the pass of before is back afterwards."""
        before = self.value
        self.value = value
        try:
            return function(*args, **kwargs)
        finally:
            self.value = before


class GeneratedAdapters:
    """The A and B of every adapter for the questions of one pass, made at once.

    Args:
        networks: The active hypernetworks, by adapter name.
        given: What each reads: features ``(batch, feature_dim)``, memories ``(batch, memories, r, d)``, or documents.
        dtype: What the layers compute in: all matrices are cast at once, not at every use. ``None`` leaves them.
    """

    def __init__(self, networks: dict[str, HyperNetwork], given: Given, dtype: torch.dtype | None):
        # Unbound, not indexed: the gradient of an index is as large as all sites together, once for each site.
        self._by_site = {
            name: {
                kind: [(a.to(dtype).unbind(), b.to(dtype).unbind()) for a, b in pairs]
                for kind, pairs in network(_written(network, given[name])).items()
            }
            for name, network in networks.items()
        }

    def matrices(self, adapter_name: str, site: Site) -> list[Matrices]:
        """A ``(batch, d_in, r)`` and B ``(batch, r, d_out)`` of one site.

        Where all questions share one, as the A of memories and both of a static part, its batch is 1.
        """
        return [(a[site.position], b[site.position]) for a, b in self._by_site[adapter_name][site.kind]]


class AdaptersOnDemand:
    """The same, each site's made where they are used.

    Activation checkpointing needs it: a checkpointed block recomputes what it uses, and a reentrant checkpoint
    backpropagates through its closure once per block, which only leaf tensors survive.
    """

    def __init__(self, networks: dict[str, HyperNetwork], given: Given):
        self._networks, self._given = networks, given

    def matrices(self, adapter_name: str, site: Site) -> list[Matrices]:
        network = self._networks[adapter_name]
        pairs = network.matrices(_written(network, self._given[adapter_name]), site.kind, site.position)
        return [(a[0], b[0]) for a, b in pairs]


def _written(network: HyperNetwork, given: torch.Tensor | DocumentStates) -> torch.Tensor:
    """What a hypernetwork makes matrices of: documents are first written into memories, a row for each question."""
    if isinstance(given, torch.Tensor):
        return given
    memories = network.write(given)
    if given.weights is not None:
        return torch.einsum("qb,bmrd->qmrd", given.weights.to(memories), memories)
    return memories if given.rows is None else memories[given.rows]


def make_pass(model: nn.Module, inputs: AdapterInputs, cu_seqlens: torch.Tensor | None = None) -> Pass | None:
    """The pass of `inputs` through the base model `model`; ``None`` where the adapters are disabled.

    Raises:
        ValueError: Inputs that the active hypernetworks cannot read.
    """
    container: HyperLoraNetworks = getattr(model, CONTAINER)
    if container.disable_adapters:
        return None
    given, questions = inputs.for_networks(container), inputs.questions
    networks = container.active_networks
    if model.training:
        # Once for the pass, which may make its adapters layer by layer and again for gradients.
        given = {name: networks[name].in_training(value) for name, value in given.items()}
    adapters: AdapterSource
    if model.training and _let_checkpoints_find_the_pass(model, container.current):
        adapters = AdaptersOnDemand(networks, given)
    else:
        # A CPU decodes with adapters in single precision; see `computes_in_single_precision`.
        on_cpu = all(next(network.parameters()).device.type == "cpu" for network in networks.values())
        decodes_on_cpu = on_cpu and not torch.is_grad_enabled()
        adapters = GeneratedAdapters(networks, given, None if decodes_on_cpu else container.compute_dtype)
    return Pass(adapters, questions, cu_seqlens)


@contextmanager
def hyperlora_features(
    model: nn.Module, features: torch.Tensor | None = None, memory: DocumentMemory | None = None
) -> Iterator[None]:
    """Scope for calls that enter below the model's own forward or generate: the encoder alone, a custom loop.

    The adapters belong to the calling thread.

    Args:
        model: A PEFT model with a HyperLoRA adapter, or its base model.
        features: ``(batch, feature_dim)``. Rows that reach a layer may be any multiple of `batch`, sample-major.
        memory: A memory for each question, for an adapter that reads documents.

    Raises:
        ValueError: The model has no HyperLoRA adapter, or what was given cannot be read.

    Example:

    ```python
    with hyperlora_features(model, features):
        encoder_outputs = model.get_base_model().encoder(input_ids=input_ids)
    ```
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not hasattr(base, CONTAINER):
        raise ValueError(f"{type(base).__name__} has no HyperLoRA adapter: add one with get_peft_model first.")
    if features is None and memory is None:
        raise ValueError("nothing to make adapters from: pass features, memory or both.")
    current: CurrentPass = getattr(base, CONTAINER).current
    entered, before = make_pass(base, AdapterInputs(features, memory)), current.value
    try:
        current.value = entered
        yield
    finally:
        current.value = before


def enter_call(model: nn.Module, given: AdapterInputs | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The pass of a call of the base model: of what it was given, or the one around it; ``None`` outside of any."""
    inputs = args[0] if args else kwargs.get("input_ids")
    inputs = kwargs.get("inputs_embeds") if inputs is None else inputs
    if given is not None:
        cu_seqlens = kwargs.get("cu_seq_lens_q")
        given.check_rows(inputs, cu_seqlens)
        value = make_pass(model, given, cu_seqlens)
    else:
        value = getattr(model, CONTAINER).current.value
    if value is None or not isinstance(inputs, torch.Tensor) or model_has_decoder(model):
        return value
    return replace(value, tokens=inputs.shape[:2].numel())


def model_has_decoder(model: nn.Module) -> bool:
    """Whether the layers of a call read two kinds of tokens, those of an encoder and those of a decoder."""
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def _let_checkpoints_find_the_pass(model: nn.Module, current: CurrentPass) -> bool:
    """Whether `model` recomputes activations; the first time, its checkpointing functions are wrapped."""
    checkpointed = [module for module in model.modules() if getattr(module, "gradient_checkpointing", False)]
    for module in checkpointed:
        if not isinstance(module._gradient_checkpointing_func, CheckpointWithPass):
            module._gradient_checkpointing_func = CheckpointWithPass(module._gradient_checkpointing_func, current)
    return bool(checkpointed)


class CheckpointWithPass:
    """A checkpointing function whose recomputation finds the pass in which the block ran first.

    Recomputation calls the block after that pass has ended, and in a thread of autograd's own on other devices.
    """

    def __init__(self, checkpoint: Callable[..., Any], current: CurrentPass):
        self.checkpoint, self.current = checkpoint, current
        # Where others look for `use_reentrant`.
        self.keywords = getattr(checkpoint, "keywords", {})

    def __call__(self, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        value = self.current.value
        if value is None:
            return self.checkpoint(run, *args, **kwargs)

        def run_in_pass(*run_args: Any, **run_kwargs: Any) -> Any:
            return self.current.run(value, run, *run_args, **run_kwargs)

        return self.checkpoint(run_in_pass, *args, **kwargs)
