"""Ranking passages by how likely they make the question: many at a time, against one at a time as LLMLingua does.

python benchmarks/compression.py
"""

from functools import partial

import models
import torch
from measure import compare
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase

from aag_hf.cli.tiny import make_tokenizer
from aag_hf.data.ranking import RESTRICTION, question_losses

BASELINE = "a passage at a time, all logits"
QUESTIONS, PASSAGES = 2, 5


def pairs() -> list[tuple[str, str]]:
    """Passage and question; each question with passages of its own."""
    torch.manual_seed(0)
    texts = [" ".join(map(str, torch.randint(10, 99, (30,)).tolist())) for _ in range(QUESTIONS * PASSAGES)]
    return [(text, f"which of these is number {i // PASSAGES}?") for i, text in enumerate(texts)]


@torch.inference_mode()
def one_at_a_time(model: nn.Module, tokenizer: PreTrainedTokenizerBase, rows: list[tuple[str, str]]) -> list[float]:
    losses = []
    for passage, question in rows:
        question += RESTRICTION
        ids = torch.tensor([tokenizer(passage + question)["input_ids"]], device=models.device())
        asked = len(tokenizer(question)["input_ids"])
        logits = model(input_ids=ids).logits[0, -asked - 1 : -1].float()
        losses.append(cross_entropy(logits, ids[0, -asked:]).item())
    return losses


def main() -> None:
    model, tokenizer, rows = models.base_model().eval(), make_tokenizer(), pairs()
    cases = {
        BASELINE: partial(one_at_a_time, model, tokenizer, rows),
        "in batches, logits of questions only": partial(question_losses, model, tokenizer, rows),
    }
    compare(
        "compression", cases, BASELINE, setting=f"{QUESTIONS} questions, {PASSAGES} passages of about 90 tokens each"
    )


if __name__ == "__main__":
    main()
