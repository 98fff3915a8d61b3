"""One question from text to answer: ten retrieved passages in the prompt against AAG's generated contexts.

Retrieval itself is left out. `python benchmarks/question.py`
"""

from functools import partial

import models
import torch
from measure import compare
from torch import nn

from aag_hf import QuestionEncoder
from aag_hf.awakening.drafts import DrawingOptions, draw_texts
from aag_hf.cli.tiny import make_tokenizer
from aag_hf.collators import DataCollatorForContextGeneration

BASELINE = "10 passages in the prompt"
QUESTION = "what is the capital of the islands of Fiji?"
PASSAGE_TOKENS, CONTEXT_TOKENS, ANSWER_TOKENS = 100, 64, 8
DRAFTS = (4, 8)


def write(model: nn.Module, prompt_tokens: int, new_tokens: int, rows: int = 1, **features: torch.Tensor) -> None:
    ids = torch.full((rows, prompt_tokens), 100, device=models.device())
    exactly = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens, "do_sample": False, "pad_token_id": 0}
    model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **exactly, **features)


def main() -> None:
    base = models.base_model().eval()
    reader = models.with_hyperlora(base).eval()
    encoder = QuestionEncoder.from_backbone(base, make_tokenizer(), feature_dim=models.FEATURES)
    encoder.fit_whitening([f"{QUESTION} {i}" for i in range(32)])
    asked = len(encoder.tokenizer(QUESTION)["input_ids"])

    def closed_book(adapted: bool, context_tokens: int = 0) -> None:
        features = {"features": encoder.encode([QUESTION]).to(models.device())} if adapted else {}
        write(reader if adapted else base, asked + context_tokens, ANSWER_TOKENS, **features)

    def awakened() -> None:
        write(base, asked, CONTEXT_TOKENS)
        closed_book(True, CONTEXT_TOKENS)

    def drafted(number: int) -> None:
        collator, record = DataCollatorForContextGeneration(encoder.tokenizer, prompt="{question}"), {"id": "0"}
        draw_texts(
            base,
            collator,
            [record | {"question": QUESTION}],
            number,
            DrawingOptions(),
            max_new_tokens=CONTEXT_TOKENS,
        )
        features = encoder.encode([QUESTION]).to(models.device()).expand(number, -1)
        write(reader, asked + CONTEXT_TOKENS, ANSWER_TOKENS, number, features=features)

    cases = {
        BASELINE: partial(closed_book, False, 10 * PASSAGE_TOKENS),
        "AAG: generated context, HyperLoRA": awakened,
        **{f"AAG: {number} drafts, an answer from each": partial(drafted, number) for number in DRAFTS},
        "HyperLoRA, closed book": partial(closed_book, True),
        "frozen base, closed book": partial(closed_book, False),
    }
    lengths = {"question": asked, "passage": PASSAGE_TOKENS, "context": CONTEXT_TOKENS, "answer": ANSWER_TOKENS}
    setting = "tokens: " + ", ".join(f"{name} {tokens}" for name, tokens in lengths.items())
    compare("question", cases, BASELINE, setting=setting)


if __name__ == "__main__":
    main()
