"""Base models that were loaded in fewer bits."""

import logging
from pathlib import Path

from peft import prepare_model_for_kbit_training
from transformers import PreTrainedModel

logger = logging.getLogger(__name__)


def quantization_of(model: PreTrainedModel) -> str | None:
    """``"8bit"`` or ``"4bit"`` by bitsandbytes, another method's name, or ``None`` for a model in full precision."""
    config = getattr(model.config, "quantization_config", None)
    if config is None:
        return None
    told = config if isinstance(config, dict) else config.to_dict()
    for bits in ("8bit", "4bit"):
        if told.get(f"load_in_{bits}"):
            return bits
    return str(getattr(told["quant_method"], "value", told["quant_method"]))


def prepare_quantized(model: PreTrainedModel) -> PreTrainedModel:
    """Put norms, embeddings and head of a quantised model into float32, as adapters are trained over it; else nothing.

    Answers depend on it, so that it is done wherever a model is loaded, not in training alone.
    """
    if quantization_of(model) is None:
        return model
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


def tell_precision(directory: Path, trained: str | None, base: PreTrainedModel) -> None:
    """Say so where a saved model is loaded over a base in other bits than it was trained on."""
    loaded = quantization_of(base)
    if trained != loaded:
        logger.warning(
            "%s: trained on a base in %s, loaded over one in %s: answers may differ.",
            directory,
            trained or "full precision",
            loaded or str(base.dtype).removeprefix("torch."),
        )
