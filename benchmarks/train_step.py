"""Forward and backward of a training step: HyperLoRA against static PEFT LoRA of equal rank and targets.

python benchmarks/train_step.py
"""

from functools import partial

import models
from measure import compare
from torch import Tensor, nn

from aag_hf.trainers import answer_cross_entropy
from aag_hf.trainers.answer_logits import answer_logits

BASELINE = "static LoRA"


def step(model: nn.Module, inputs: dict[str, Tensor]) -> None:
    logits, labels = answer_logits(model, inputs)
    answer_cross_entropy(logits, labels).backward()


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


if __name__ == "__main__":
    main()
