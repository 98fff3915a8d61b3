"""Linear layers with a LoRA adapter of its own for each sample."""

from aag_hf.kernels.hyper_lora.functional import (
    gated_lora_linear,
    hyper_lora_add,
    hyper_lora_linear,
)
from aag_hf.kernels.hyper_lora.naive import hyper_lora_naive

__all__ = [
    "gated_lora_linear",
    "hyper_lora_add",
    "hyper_lora_linear",
    "hyper_lora_naive",
]
