"""The PEFT tuner of HyperLoRA."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import chain
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from peft.utils.integrations import init_empty_weights
from peft.utils.quantization_utils import get_quantization_kwargs, resolve_quantization_backend
from torch import nn
from transformers.pytorch_utils import Conv1D

from aag_hf.hyperlora.adapted_model import adapt, restore
from aag_hf.hyperlora.adapter_inputs import checked_states
from aag_hf.hyperlora.adapter_scope import CONTAINER
from aag_hf.hyperlora.config import HyperLoraConfig
from aag_hf.hyperlora.document_memory import DocumentMemory
from aag_hf.hyperlora.document_states import DocumentStates
from aag_hf.hyperlora.hypernetwork import EmbeddingHyperNetwork, HyperNetwork, MlpHyperNetwork, make_sites
from aag_hf.hyperlora.layer import HyperLoraLayer, HyperLoraLinear, HyperLoraNetworks
from aag_hf.hyperlora.memory_network import MemoryHyperNetwork
from aag_hf.hyperlora.rows import find_rows

NETWORKS: dict[str, type[HyperNetwork]] = {
    "embedding": EmbeddingHyperNetwork,
    "mlp": MlpHyperNetwork,
    "memory": MemoryHyperNetwork,
}


class HyperLoraModel(BaseTuner):
    """Gives every linear layer it targets a low-rank update made from the question's features, or from a document.

    Created by [`peft.get_peft_model`] or [`peft.PeftModel.from_pretrained`] from a [`HyperLoraConfig`]; see there for
    an example. The hypernetwork lives inside the base model, so transformers' own adapter loading works too.

    A call of the adapted model, and its `generate`, also takes

    - `features`: ``(questions, feature_dim)``, for adapters made from questions;
    - `memory`: a [`~aag_hf.DocumentMemory`] with one row per question, for adapters made from documents;
    - `documents`: [`~aag_hf.questions.DocumentStates`] instead of the memory, in training;
    - `merge_adapter`: of `generate` only, compute with the adapter of the only question inside copies of the weights.

    Raises:
        TypeError: `get_peft_model` targets a layer that is not linear.
        ValueError: A call gives none of these, or rows that do not fit the batch or the adapter.
    """

    prefix = "hyperlora_"
    tuner_layer_cls = HyperLoraLayer
    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    def _create_and_replace(
        self,
        peft_config: HyperLoraConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **_: Any,
    ) -> None:
        if isinstance(target, HyperLoraLinear):
            target.update_layer(adapter_name, peft_config)
            return
        kwargs = get_quantization_kwargs(self.model)
        base = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
        if not isinstance(base, (nn.Linear, Conv1D)) and resolve_quantization_backend(base, **kwargs) is None:
            raise TypeError(
                f"{current_key} is a {type(base).__name__}; HyperLoRA adapts linear layers: name others in "
                "target_modules."
            )
        self._replace_module(parent, target_name, HyperLoraLinear(target, adapter_name, peft_config, **kwargs), target)

    def inject_adapter(
        self,
        model: nn.Module,
        adapter_name: str,
        autocast_adapter_dtype: bool = True,
        low_cpu_mem_usage: bool = False,
        state_dict: dict[str, torch.Tensor] | None = None,
    ) -> None:
        """Replace the targets, then build the hypernetwork for them.

        `get_peft_model`, `add_adapter` and transformers' `from_pretrained` all come through here.
        """
        super().inject_adapter(model, adapter_name, autocast_adapter_dtype, low_cpu_mem_usage, state_dict)
        layers = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, HyperLoraLinear) and adapter_name in module.scaling
        }
        if not hasattr(model, CONTAINER):
            self._attach(model, list(layers.values()))
        container: HyperLoraNetworks = getattr(model, CONTAINER)
        untried = [name for name, layer in layers.items() if layer.name == ""]
        for name, rows in find_rows(model, untried).items() if untried else ():
            layers[name].name, layers[name].rows, layers[name].current = name, rows, container.current
        config = self.peft_config[adapter_name]
        shapes = {name: (layer.in_features, layer.out_features) for name, layer in layers.items()}
        sites = make_sites(shapes, config)
        for name, layer in layers.items():
            layer.sites[adapter_name] = sites[name]
        network_class = NETWORKS[config.hypernetwork]
        with init_empty_weights() if low_cpu_mem_usage else nullcontext():
            network = network_class(config, sites)
        network.requires_grad_(adapter_name in self.active_adapters and not config.inference_mode)
        container.hyperlora_net[adapter_name] = network
        container._move_adapter_to_device_of_base_layer(adapter_name)
        if autocast_adapter_dtype and not low_cpu_mem_usage:
            # As PEFT does for LoRA: weights in half precision lose small updates.
            tensors = chain(network.parameters(), network.buffers())
            for half in (t for t in tensors if t.dtype in (torch.float16, torch.bfloat16)):
                half.data = half.data.float()

    @torch.no_grad()
    def memorize(
        self, states: DocumentStates, ids: Sequence[str] | None = None, adapter_name: str | None = None
    ) -> DocumentMemory:
        """Write documents into memories, in one pass of the hypernetwork.

        Args:
            states: What a [`~aag_hf.DocumentEncoder`] made of the documents.
            ids: A name for each document; by default its number.
            adapter_name: The adapter that reads documents; by default the active one.

        Returns:
            One row per document, ``(documents, memories, r, d)`` with a memory per adapted layer, or one for all. Pass
            it as ``memory=`` to the model's forward or generate.

        Raises:
            ValueError: No such adapter, or states that it cannot read.
        """
        name, network, states = self._reader_of(states, adapter_name)
        memories = network.write(states)
        names = tuple(map(str, range(len(memories)))) if ids is None else tuple(ids)
        return DocumentMemory(memories, names, network.fingerprint(), self.peft_config[name].base_model_name_or_path)

    @torch.no_grad()
    def gates(self, states: DocumentStates, adapter_name: str | None = None) -> torch.Tensor:
        """How strongly `memorize` writes each token of some documents.

        Args:
            states: What a [`~aag_hf.DocumentEncoder`] made of the documents.
            adapter_name: As in `memorize`.

        Returns:
            ``(documents, tokens, memories)``; the squares of a document's tokens add up to 1 in each memory.

        Raises:
            ValueError: As in `memorize`.
        """
        _, network, states = self._reader_of(states, adapter_name)
        return network.gates(states)

    def _reader_of(
        self, states: DocumentStates, adapter_name: str | None
    ) -> tuple[str, MemoryHyperNetwork, DocumentStates]:
        """The adapter that reads documents, its hypernetwork, and the states on its device."""
        container: HyperLoraNetworks = getattr(self.model, CONTAINER)
        networks = container.active_networks if adapter_name is None else dict(container.hyperlora_net)
        readers = {name: network for name, network in networks.items() if network.reads == "documents"}
        name = next(iter(readers), None) if adapter_name is None else adapter_name
        if name not in readers:
            which = "no active adapter" if name is None else f"no adapter named {name!r}"
            raise ValueError(f"{which} reads documents: make one with HyperLoraConfig(hypernetwork='memory').")
        network = readers[name]
        return name, network, checked_states(network, DocumentStates(**states)).to(network.key.weight.device)

    def _attach(self, model: nn.Module, layers: list[HyperLoraLinear]) -> None:
        container = HyperLoraNetworks(layers)
        container.set_adapter(self.active_adapters)
        setattr(model, CONTAINER, container)
        adapt(model)

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        # PEFT strips the adapter's name only in the last two parts of a key; without this, loading under another
        # name would silently keep random weights.
        marker = f"{CONTAINER}.hyperlora_net."
        return key.replace(f"{marker}{adapter_name}.", marker, 1) if marker in key else key

    def _check_merge_allowed(self) -> None:
        raise ValueError("A HyperLoRA update belongs to one question and cannot be merged: export it with `to_lora`.")

    def unload(self) -> nn.Module:
        """The base model as it was."""
        restore(self.model)
        delattr(self.model, CONTAINER)
        return super().unload()
