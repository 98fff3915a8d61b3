"""Awakening Augmented Generation for the Hugging Face ecosystem.

Importing this package registers the method ``"HYPERLORA"`` with PEFT, and the task ``"awakening-qa"`` with
transformers' `pipeline`, each as soon as that library is imported. Everything else is imported on first use.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aag_hf.registration import when_imported

_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "setup.cfg").is_file() and (_checkout / "kernels" / "hyper_lora").is_dir():
    # In a source checkout trainers/, collators/ and kernels/ lie beside this folder; installed, they lie inside it.
    __path__.append(str(_checkout))

# The command line prints its help without loading torch.
when_imported("peft", lambda: import_module("aag_hf.hyperlora"))
when_imported("transformers.pipelines", lambda: import_module("aag_hf.awakening.task"))

if TYPE_CHECKING:
    from aag_hf.awakening import AwakeningConfig, AwakeningModel, AwakeningPipeline
    from aag_hf.fid import FiDT5Config, FiDT5ForConditionalGeneration
    from aag_hf.hyperlora import DocumentMemory, HyperLoraConfig, HyperLoraModel, hyperlora_features, to_lora
    from aag_hf.questions import DocumentEncoder, DocumentEncoderConfig, QuestionEncoder, QuestionEncoderConfig

__version__ = "0.1.0"

_HOMES = {
    "DocumentMemory": "aag_hf.hyperlora",
    "HyperLoraConfig": "aag_hf.hyperlora",
    "HyperLoraModel": "aag_hf.hyperlora",
    "hyperlora_features": "aag_hf.hyperlora",
    "to_lora": "aag_hf.hyperlora",
    "FiDT5Config": "aag_hf.fid",
    "FiDT5ForConditionalGeneration": "aag_hf.fid",
    "DocumentEncoderConfig": "aag_hf.questions",
    "DocumentEncoder": "aag_hf.questions",
    "QuestionEncoderConfig": "aag_hf.questions",
    "QuestionEncoder": "aag_hf.questions",
    "AwakeningConfig": "aag_hf.awakening",
    "AwakeningModel": "aag_hf.awakening",
    "AwakeningPipeline": "aag_hf.awakening",
}

__all__ = [
    "DocumentMemory",
    "HyperLoraConfig",
    "HyperLoraModel",
    "hyperlora_features",
    "to_lora",
    "FiDT5Config",
    "FiDT5ForConditionalGeneration",
    "DocumentEncoderConfig",
    "DocumentEncoder",
    "QuestionEncoderConfig",
    "QuestionEncoder",
    "AwakeningConfig",
    "AwakeningModel",
    "AwakeningPipeline",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
