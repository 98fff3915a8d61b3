"""Forward and backward of a training step: HyperLoRA against static PEFT LoRA of equal rank and targets.

python benchmarks/train_step.py
"""

from functools import partial
from typing import Any

import models
import torch
from measure import compare
from torch import Tensor, nn

from aag_hf.collators.padding import pack, pad_sequence_to_sequence
from aag_hf.trainers import answer_cross_entropy
from aag_hf.trainers.answer_logits import answer_logits

BASELINE = "static LoRA"


def step(model: nn.Module, inputs: dict[str, Tensor]) -> None:
    logits, labels = answer_logits(model, inputs)
    answer_cross_entropy(logits, labels).backward()


def unequal_rows() -> tuple[dict[str, Any], dict[str, Any]]:
    """16 rows of 8 to 32 tokens, as the collator pads them and as it packs them."""
    torch.manual_seed(1)
    lengths = torch.linspace(8, 32, 16).int().tolist()
    prompts = [torch.randint(10, models.VOCABULARY, (length - 6,)).tolist() for length in lengths]
    answers = [torch.randint(10, models.VOCABULARY, (6,)).tolist() for _ in lengths]
    batches = pad_sequence_to_sequence(prompts, answers, 0, is_encoder_decoder=False), pack(prompts, answers)
    features = torch.randn(16, models.FEATURES)
    padded, packed = (
        {n: _on_device(value) for n, value in (batch | {"features": features}).items()} for batch in batches
    )
    return padded, packed


def _on_device(value: Any) -> Any:
    return value.to(models.device()) if isinstance(value, Tensor) else value


def main() -> None:
    base = models.base_model()
    lora, hyperlora = models.with_static_lora(base), models.with_hyperlora(base)
    both = models.with_hyperlora(base, static=True)
    frozen = models.share_weights(base)
    # Its backward pass reaches the embeddings, as it does below an adapter of the first layer.
    frozen.enable_input_require_grads()
    for rows, tokens in ((4, 128), (16, 32)):
        inputs = models.batch(rows, tokens)
        plain = models.without_features(inputs)
        cases = {
            "frozen base": partial(step, frozen, plain),
            BASELINE: partial(step, lora, plain),
            "HyperLoRA": partial(step, hyperlora, inputs),
            "HyperLoRA with a static part": partial(step, both, inputs),
        }
        compare("training step", cases, BASELINE, setting=f"{rows} × {tokens} tokens, rank {models.RANK}, bfloat16")
    padded, packed = unequal_rows()
    cases = {"padded": partial(step, hyperlora, padded), "padding-free": partial(step, hyperlora, packed)}
    compare(
        "training step of unequal rows", cases, "padded", setting=f"16 × 8 to 32 tokens, rank {models.RANK}, bfloat16"
    )


if __name__ == "__main__":
    main()
