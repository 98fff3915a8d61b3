"""How sure a model is of the texts it writes."""

import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedTokenizerBase


class TokenLogProbs(LogitsProcessor):
    """Keeps the log-probability of each token that is decoded, without keeping any step's logits. Not for beams."""

    def __init__(self) -> None:
        self._steps: list[Tensor] = []
        self._last: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Leave `scores` as they are."""
        self._take(input_ids[:, -1])
        self._last = scores.float().log_softmax(-1)
        return scores

    def of(self, ids: Tensor) -> Tensor:
        """The log-probabilities of the decoded tokens `ids`, both ``(rows, tokens)``."""
        self._take(ids[:, -1])
        self._last = None
        return torch.stack(self._steps, dim=1)

    def _take(self, chosen: Tensor) -> None:
        if self._last is not None:
            self._steps.append(self._last.gather(1, chosen[:, None])[:, 0])


def answer_scores(ids: Tensor, log_probs: Tensor, tokenizer: PreTrainedTokenizerBase) -> list[float]:
    """The mean log-probability of each answer, which is the first line of a text and what ends it.

    Args:
        ids: ``(rows, tokens)``, decoded tokens; after a text's end anything may follow.
        log_probs: ``(rows, tokens)``, their log-probabilities.
        tokenizer: The model's.
    """
    return [
        row_log_probs[: _length(row, tokenizer)].mean().item() for row, row_log_probs in zip(ids.tolist(), log_probs)
    ]


def _length(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> int:
    """How many tokens a text's first line has, with the one that ends it. Blank lines before it belong to it."""
    begun = False
    for number, token in enumerate(ids, start=1):
        piece = tokenizer.decode([token])
        if token == tokenizer.eos_token_id or (begun and "\n" in piece) or "\n" in piece.strip():
            return number
        begun = begun or bool(piece.strip())
    return len(ids)
