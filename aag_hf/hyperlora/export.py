"""Freeze the adapter made for one question or one document into a plain PEFT LoRA."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import nn

from aag_hf.hyperlora.adapter_inputs import AdapterInputs
from aag_hf.hyperlora.adapter_scope import CONTAINER
from aag_hf.hyperlora.document_memory import DocumentMemory
from aag_hf.hyperlora.layer import HyperLoraLinear


@torch.no_grad()
def to_lora(
    model: nn.Module,
    features: torch.Tensor | None = None,
    adapter_name: str = "default",
    *,
    memory: DocumentMemory | None = None,
    rank: int | None = None,
) -> tuple[LoraConfig, dict[str, torch.Tensor]]:
    """The adapter for one question or document as a plain LoRA: merged or served elsewhere it gives the same logits.

    Args:
        model: A PEFT model with a HyperLoRA adapter, or its base model.
        features: ``(feature_dim,)`` or ``(1, feature_dim)``, for an adapter that reads features.
        adapter_name: The HyperLoRA adapter to export.
        memory: One memory, for an adapter that reads documents.
        rank: Cut every layer's update to this rank, its nearest by singular values; by default it stays exact.

    Returns:
        The LoRA's configuration, and its weights under the names of ``adapter_model.safetensors``. The rank counts
        the static part too; `lora_alpha` makes PEFT's scale equal to the adapter's own.

    Raises:
        ValueError: No such adapter, or not exactly one feature vector or memory that it can read.

    Example:

    ```python
    save_lora(directory, *to_lora(model, encoder.encode(["Where is Suva?"])))
    ```
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    networks = getattr(base, CONTAINER).hyperlora_net if hasattr(base, CONTAINER) else {}
    if adapter_name not in networks:
        raise ValueError(
            f"no HyperLoRA adapter named {adapter_name!r}; the model has: {', '.join(networks) or 'none'}."
        )
    if rank is not None and rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}.")
    network = networks[adapter_name]
    if features is not None:
        features = features.reshape(-1, features.shape[-1])
    inputs = AdapterInputs(features, memory)
    given = inputs.read_by(adapter_name, network)
    if inputs.questions != 1:
        what = "features has shape" if memory is None else "memory has shape"
        raise ValueError(f"{what} {tuple(given.shape)}, expected one row: export one question or document at a time.")
    pairs = network(given)
    weights: dict[str, torch.Tensor] = {}
    layers = {n: m for n, m in base.named_modules() if isinstance(m, HyperLoraLinear) and adapter_name in m.sites}
    for name, layer in layers.items():
        site = layer.sites[adapter_name]
        a = torch.cat([a[site.position, 0] for a, _ in pairs[site.kind]], dim=1)
        b = torch.cat([b[site.position, 0] for _, b in pairs[site.kind]], dim=0)
        a, b = (a, b) if rank is None else _nearest(a, b, rank)
        weights[f"base_model.model.{name}.lora_A.weight"] = a.T.contiguous()
        weights[f"base_model.model.{name}.lora_B.weight"] = b.T.contiguous()
    return _lora_config(model, adapter_name, a.shape[1], layer.scaling[adapter_name], sorted(layers)), weights


def save_lora(directory: str | Path, config: LoraConfig, weights: dict[str, torch.Tensor]) -> None:
    """Write a LoRA as the folder that PEFT, and any server of LoRAs, loads.

    Args:
        directory: The folder; it is made if it is absent.
        config: The LoRA's configuration, whose target modules are named one by one, as by `to_lora`.
        weights: Its weights, under the names of ``adapter_model.safetensors``.
    """
    # PEFT holds the names as a set, whose order would change from process to process.
    config.target_modules = sorted(config.target_modules or ())
    config.save_pretrained(directory)
    save_file(weights, Path(directory) / "adapter_model.safetensors", metadata={"format": "pt"})


def _lora_config(model: Any, adapter_name: str, rank: int, scaling: float, layers: list[str]) -> LoraConfig:
    config = model.peft_config[adapter_name]
    return LoraConfig(
        r=rank,
        lora_alpha=scaling * rank,
        target_modules=layers,
        task_type=config.task_type,
        base_model_name_or_path=config.base_model_name_or_path,
        inference_mode=True,
    )


def _nearest(a: torch.Tensor, b: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A pair whose product is the nearest of its rank to ``a b``."""
    rank = min(rank, *a.shape, b.shape[1])
    q_a, r_a = torch.linalg.qr(a)
    q_b, r_b = torch.linalg.qr(b.T)
    u, s, v = torch.linalg.svd(r_a @ r_b.T)
    root = s[:rank].sqrt()
    return q_a @ u[:, :rank] * root, (root.unsqueeze(1) * v[:rank]) @ q_b.T
