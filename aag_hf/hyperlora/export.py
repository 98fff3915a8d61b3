"""Freeze the adapter made for one question into a plain PEFT LoRA."""

import torch
from peft import LoraConfig
from torch import nn

from aag_hf.hyperlora.adapter_scope import CONTAINER
from aag_hf.hyperlora.layer import HyperLoraLinear


@torch.no_grad()
def to_lora(
    model: nn.Module, features: torch.Tensor, adapter_name: str = "default"
) -> tuple[LoraConfig, dict[str, torch.Tensor]]:
    """The adapter for one feature vector as a plain LoRA: merged or served elsewhere it gives the same logits.

    Args:
        model: A PEFT model with a HyperLoRA adapter, or its base model.
        features: ``(feature_dim,)`` or ``(1, feature_dim)``.
        adapter_name: The HyperLoRA adapter to export.

    Returns:
        The LoRA's configuration, and its weights under the names of ``adapter_model.safetensors``. The rank counts
        the static part too; `lora_alpha` makes PEFT's scale equal to the adapter's own.

    Raises:
        ValueError: No such adapter, or not exactly one feature vector of its size.

    Example:

    ```python
    lora, weights = to_lora(model, encoder.encode(["Where is Suva?"]))
    lora.save_pretrained(directory)
    safetensors.torch.save_file(weights, directory / "adapter_model.safetensors")
    ```
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    networks = getattr(base, CONTAINER).hyperlora_net if hasattr(base, CONTAINER) else {}
    if adapter_name not in networks:
        raise ValueError(
            f"no HyperLoRA adapter named {adapter_name!r}; the model has: {', '.join(networks) or 'none'}."
        )
    network = networks[adapter_name]
    vector = features.reshape(-1, features.shape[-1])
    if vector.shape != (1, network.feature_dim):
        raise ValueError(
            f"features has shape {tuple(features.shape)}, expected one vector of {network.feature_dim}: export one "
            "question at a time."
        )
    pairs = network(vector)
    weights: dict[str, torch.Tensor] = {}
    layers = {n: m for n, m in base.named_modules() if isinstance(m, HyperLoraLinear) and adapter_name in m.sites}
    for name, layer in layers.items():
        site = layer.sites[adapter_name]
        a = torch.cat([a[site.position, 0] for a, _ in pairs[site.kind]], dim=1)
        b = torch.cat([b[site.position, 0] for _, b in pairs[site.kind]], dim=0)
        weights[f"base_model.model.{name}.lora_A.weight"] = a.T.contiguous()
        weights[f"base_model.model.{name}.lora_B.weight"] = b.T.contiguous()
    rank, scaling = a.shape[1], layer.scaling[adapter_name]
    config = model.peft_config[adapter_name]
    return (
        LoraConfig(
            r=rank,
            lora_alpha=scaling * rank,
            target_modules=sorted(layers),
            task_type=config.task_type,
            base_model_name_or_path=config.base_model_name_or_path,
            inference_mode=True,
        ),
        weights,
    )
