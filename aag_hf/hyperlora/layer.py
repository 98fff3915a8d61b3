"""The layers PEFT puts in place: adapted linear layers, and the container of the hypernetworks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from peft.tuners.tuners_utils import BaseTunerLayer, _get_in_out_features
from peft.utils.quantization_utils import quantization_extra_repr, resolve_quantization_backend
from torch import nn

from aag_hf.hyperlora.adapter_scope import CurrentPass, Pass
from aag_hf.hyperlora.config import HyperLoraConfig
from aag_hf.hyperlora.rows import Rows, check_rows_of_layer
from aag_hf.kernels.hyper_lora import hyper_lora_add

if TYPE_CHECKING:
    from aag_hf.hyperlora.hypernetwork import HyperNetwork, Site

COMPUTE_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class HyperLoraLayer(BaseTunerLayer):
    """What PEFT recognises as a layer of this method."""


class HyperLoraLinear(nn.Module, HyperLoraLayer):
    """A linear layer of any kind (quantised, or already adapted by LoRA) whose update the current pass holds.

    It has no weights of its own.

    Attributes:
        name: Its name in the base model.
        current: The pass that runs in the calling thread, shared by all layers of the base model.
        rows: How its input holds the rows of the batch.
    """

    adapter_layer_names = ("hyperlora_dropout",)
    other_param_names = ("sites", "scaling", "use_triton")

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: HyperLoraConfig, **kwargs: Any):
        super().__init__()
        self.base_layer = base_layer
        self.quantization_backend = resolve_quantization_backend(self.get_base_layer(), **kwargs)
        self.in_features, self.out_features = _get_in_out_features(self.get_base_layer())
        self.hyperlora_dropout = nn.ModuleDict()
        self.sites: dict[str, Site] = {}
        self.scaling: dict[str, float] = {}
        self.use_triton: dict[str, bool] = {}
        self.name = ""
        self.current = CurrentPass()
        self.rows = Rows.UNTRIED
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: HyperLoraConfig, inference_mode: bool = False) -> None:
        """Make `adapter_name` known here; its site follows once all layers are known."""
        dropout = nn.Dropout(config.lora_dropout) if config.lora_dropout else nn.Identity()
        self.hyperlora_dropout[adapter_name] = dropout
        self.scaling[adapter_name] = config.scaling
        self.use_triton[adapter_name] = config.use_triton
        self.set_adapter(self.active_adapters, inference_mode=inference_mode)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        raise ValueError("A HyperLoRA update belongs to one question and cannot be merged: export it with `to_lora`.")

    @property
    def active_sites(self) -> dict[str, Site]:
        """The sites of the active adapters that reach this layer, by adapter name."""
        if self.disable_adapters:
            return {}
        return {name: self.sites[name] for name in self.active_adapters if name in self.sites}

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        active, current = self.active_sites, self.current.value
        if not active:
            return self.base_layer(x, *args, **kwargs)
        if current is None:
            raise RuntimeError(
                "A HyperLoRA layer was reached without features or memory. Pass `features=` (for an adapter that reads "
                "documents `memory=`) to the model's forward or generate, wrap calls that enter below it into "
                "`hyperlora_features(model, features)`, or leave the adapter out with `model.disable_adapter()`."
            )
        if current.adapters is None:
            return self.base_layer(x, *args, **kwargs)
        if current.merged is not None:
            return F.linear(x, current.merged[self.name], self.base_layer.bias)
        check_rows_of_layer(self.name, self.rows, x, current)
        result = self.base_layer(x, *args, **kwargs)
        if self.quantization_backend is not None:
            result = self.quantization_backend.maybe_clone_base_result(result)
        shape, bounds = result.shape, current.cu_seqlens
        if bounds is not None:
            x, result, bounds = x.flatten(0, -2), result.flatten(0, -2), bounds.to(x.device)
        # Nobody else reads the base layer's result, unless a backward pass or a hook does.
        in_place = not (torch.is_grad_enabled() or self.base_layer._forward_hooks)
        for name, site in active.items():
            dropped = self.hyperlora_dropout[name](x) if self.training else x
            # Not one pair of twice the rank: the static part would be copied, and read, once per question.
            for a, b in current.adapters.matrices(name, site):
                a, b = a.to(x.device), b.to(x.device)
                of_question = bounds if bounds is not None and len(b) > 1 else None
                scale, use_triton = self.scaling[name], self.use_triton[name]
                result = hyper_lora_add(result, dropped, a, b, scale, of_question, use_triton, in_place)
        return result if bounds is None else result.view(shape)

    def extra_repr(self) -> str:
        return quantization_extra_repr(self)

    def __repr__(self) -> str:
        return "hyperlora." + super().__repr__()


class HyperLoraNetworks(nn.Module, HyperLoraLayer):
    """The hypernetworks of all adapters, a submodule of the base model.

    Being a tuner layer itself, it is switched, frozen, cast, saved and deleted by PEFT's own machinery. PEFT's key
    handling needs a name without the prefix ``hyperlora_`` for this module and one that starts with it for the
    dictionary inside.
    """

    adapter_layer_names = ("hyperlora_net",)

    def __init__(self, layers: list[HyperLoraLinear]):
        super().__init__()
        self.hyperlora_net = nn.ModuleDict()
        self.current = CurrentPass()
        # The weights of offloaded layers lie on the meta device, where a hypernetwork could not run.
        present = (layer for layer in layers if not any(p.is_meta for p in layer.get_base_layer().parameters()))
        # In a tuple, so that it does not become a submodule.
        self._anchor = (next(present, layers[0]),)

    def get_base_layer(self) -> nn.Module:
        """The layer whose device and dtype PEFT moves new hypernetworks to."""
        return self._anchor[0].get_base_layer()

    @contextmanager
    def off(self) -> Iterator[None]:
        """Scope in which the calling thread meets the base model, or its parts, without adapters of this method."""
        before, self.current.value = self.current.value, Pass(None, 1)
        try:
            yield
        finally:
            self.current.value = before

    @property
    def active_networks(self) -> dict[str, HyperNetwork]:
        """The hypernetworks of the active adapters, by adapter name."""
        return {name: self.hyperlora_net[name] for name in self.active_adapters if name in self.hyperlora_net}

    @property
    def compute_dtype(self) -> torch.dtype | None:
        """The type the adapted layers compute in; ``None`` where quantised weights do not tell."""
        weight = getattr(self.get_base_layer(), "weight", None)
        return weight.dtype if weight is not None and weight.dtype in COMPUTE_DTYPES else None
