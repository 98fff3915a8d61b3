"""The scales of a memory hypernetwork: how large what its layers read and write is."""

import re
from typing import Any

import torch
from torch import nn

from aag_hf.errors import InputError
from aag_hf.hyperlora.adapter_scope import CONTAINER
from aag_hf.hyperlora.layer import HyperLoraLinear


@torch.no_grad()
def calibrate(model: nn.Module, labels: torch.Tensor | None = None, **inputs: Any) -> None:
    """Measure the scales of memory adapters on a batch of training rows, once, before training.

    Layers differ widely in the size of what they read, and the residual stream grows from layer to layer. With these
    scales one learning rate suits all of them. They are saved with the adapter.

    Args:
        model: A PEFT model with adapters of ``hypernetwork="memory"``; the others are left alone.
        labels: ``(batch, tokens)``, -100 except at the tokens of answers: only the positions that predict them count,
            which for a causal model are one earlier. Without it all positions but the first do.
        **inputs: The base model's own inputs, such as `input_ids` and `attention_mask`.

    Raises:
        InputError: No position to measure at, or what is measured there is not finite.

    Example:

    ```python
    model = get_peft_model(base, HyperLoraConfig(hypernetwork="memory", r=64, feature_dim=576, target_modules=…))
    calibrate(model, **collator(training_records[:32]))
    ```
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    networks = {n: net for n, net in getattr(base, CONTAINER).hyperlora_net.items() if net.reads == "documents"}
    layers = {n: m for n, m in base.named_modules() if isinstance(m, HyperLoraLinear) and set(networks) & set(m.sites)}
    decodes = bool(base.config.is_encoder_decoder)
    here = _positions(labels, inputs, decodes)
    inputs |= {"labels": labels} if decodes and labels is not None else {}
    sizes: dict[str, torch.Tensor] = {}
    handles = [
        layer.register_forward_pre_hook(lambda _, args, name=name: sizes.update({name: _rms(args[0][here])}))
        for name, layer in layers.items()
    ]
    training = base.training
    base.eval()
    try:
        with model.disable_adapter():
            outputs = model(**inputs, output_hidden_states=True, use_cache=False)
    finally:
        base.train(training)
        for handle in handles:
            handle.remove()
    states = outputs.decoder_hidden_states if decodes else outputs.hidden_states
    for name, layer in layers.items():
        block = re.search(r"\.(\d+)\.", name)
        # Behind its block, but never behind the final norm, which transformers puts in place of the last block's.
        behind = min(int(block.group(1)) + 1, len(states) - 2) if block else len(states) - 2
        for adapter_name, network in networks.items():
            site = layer.sites.get(adapter_name)
            if site is None:
                continue
            for which, size in (("input", sizes[name]), ("output", _rms(states[behind][here]))):
                if not size.isfinite() or size == 0:
                    raise InputError(f"{name}: the rms of its {which} is {size.item()}: calibrate on other rows.")
                getattr(network, f"{which}_rms_{site.kind}")[site.position] = size


def _positions(labels: torch.Tensor | None, inputs: dict[str, Any], decodes: bool) -> torch.Tensor:
    if labels is not None:
        here = labels != -100
        here = here if decodes else torch.nn.functional.pad(here[:, 1:], (0, 1), value=False)
    else:
        ids = inputs["decoder_input_ids"] if decodes else inputs["input_ids"]
        mask = None if decodes else inputs.get("attention_mask")
        here = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
        # Everything attends to the first token, whose states are many times larger than all others.
        here = here & (here.cumsum(1) > 1)
    if not here.any():
        raise InputError("there is no position to calibrate on: pass rows with answers.")
    return here


def _rms(states: torch.Tensor) -> torch.Tensor:
    return states.float().square().mean().sqrt()
