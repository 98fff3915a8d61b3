"""Decoding: HyperLoRA against the frozen base model and static PEFT LoRA, and adapters made anew at every token.

python benchmarks/generate.py
"""

from functools import partial

import models
import torch
from measure import compare
from torch import Tensor, nn

from aag_hf.awakening.decoding import contiguous_head

BASELINE = "frozen base"
SMALL = "135M"
NEW_TOKENS = 32


def decode(model: nn.Module, inputs: dict[str, Tensor], **options: bool) -> None:
    exactly = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": 0}
    with contiguous_head(model):
        model.generate(**inputs, **exactly, **options)


@torch.no_grad()
def decode_regenerating(model: nn.Module, inputs: dict[str, Tensor]) -> None:
    """As the paper's code: the hypernetwork runs again for every token."""
    past, step = None, {**inputs}
    for _ in range(NEW_TOKENS):
        with contiguous_head(model):
            output = model(**step, past_key_values=past, use_cache=True, logits_to_keep=1)
        past = output.past_key_values
        step = {"input_ids": output.logits[:, -1:].argmax(-1), "features": inputs["features"]}


def measure(size: str, base: nn.Module, rows: int) -> None:
    lora, hyperlora = models.with_static_lora(base).eval(), models.with_hyperlora(base).eval()
    inputs = {n: v for n, v in models.batch(rows, 32).items() if n != "labels"}
    plain = models.without_features(inputs)
    cases = {
        BASELINE: partial(decode, base, plain),
        "static LoRA": partial(decode, lora, plain),
        "HyperLoRA": partial(decode, hyperlora, inputs),
    }
    if size == SMALL and rows > 1:
        cases["HyperLoRA, made anew at every token"] = partial(decode_regenerating, hyperlora, inputs)
    if rows == 1:
        cases["HyperLoRA, merged"] = partial(decode, hyperlora, inputs, merge_adapter=True)
    setting = f"{size}, {rows} × 32 tokens in, {NEW_TOKENS} out, rank {models.RANK}, bfloat16"
    compare("generate", cases, BASELINE, rounds=7, setting=setting)


def main() -> None:
    for size, make in {SMALL: models.base_model, "1.7B's width": models.wide_model}.items():
        base = make().eval()
        for rows in (1, 4):
            measure(size, base, rows)


if __name__ == "__main__":
    main()
