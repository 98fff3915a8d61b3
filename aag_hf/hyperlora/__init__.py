"""HyperLoRA, a PEFT method: LoRA adapters that a hypernetwork makes from a question's features, or from a document."""

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

from aag_hf.hyperlora.adapter_scope import hyperlora_features
from aag_hf.hyperlora.calibration import calibrate
from aag_hf.hyperlora.config import HYPERLORA, HyperLoraConfig
from aag_hf.hyperlora.document_memory import DocumentMemory
from aag_hf.hyperlora.export import save_lora, to_lora
from aag_hf.hyperlora.model import HyperLoraModel
from aag_hf.hyperlora.targets import memory_layers

# `peft.utils.register_peft_method` only takes names that PEFT's own closed enum has.
PEFT_TYPE_TO_PREFIX_MAPPING[HYPERLORA] = HyperLoraModel.prefix
PEFT_TYPE_TO_CONFIG_MAPPING[HYPERLORA] = HyperLoraConfig
PEFT_TYPE_TO_TUNER_MAPPING[HYPERLORA] = HyperLoraModel

__all__ = [
    "DocumentMemory",
    "HyperLoraConfig",
    "HyperLoraModel",
    "calibrate",
    "hyperlora_features",
    "memory_layers",
    "save_lora",
    "to_lora",
]
