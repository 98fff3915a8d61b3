"""How sure a model is of the texts it writes."""

from collections.abc import Collection

import torch
from torch import Tensor, nn
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


def end_tokens(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The tokens with which a model ends a text: those of its `generation_config`, of which there may be several."""
    ends = model.generation_config.eos_token_id
    ends = tokenizer.eos_token_id if ends is None else ends
    return set(ends) if isinstance(ends, list) else {ends}


def answer_scores(
    ids: Tensor, log_probs: Tensor, tokenizer: PreTrainedTokenizerBase, ends: Collection[int]
) -> list[float]:
    """The mean log-probability of each answer, which is the first line of a text and what ends it.

    Args:
        ids: ``(rows, tokens)``, decoded tokens; after a text's end anything may follow.
        log_probs: ``(rows, tokens)``, their log-probabilities.
        tokenizer: The model's.
        ends: The tokens that end a text.
    """
    lengths = [_length(row, tokenizer, ends) for row in ids.tolist()]
    return [row[:length].mean().item() for row, length in zip(log_probs, lengths)]


def text_scores(ids: Tensor, log_probs: Tensor, ends: Collection[int]) -> list[float]:
    """The mean log-probability of each whole text, with the token that ends it.

    Args:
        ids: As in `answer_scores`.
        log_probs: As there.
        ends: As there.
    """
    ended = torch.isin(ids, torch.tensor(sorted(ends), device=ids.device))
    # Tokens before the first end, and that one.
    counted = (ended.cumsum(1) - ended.long() == 0).to(log_probs)
    return ((log_probs * counted).sum(1) / counted.sum(1)).tolist()


def _length(ids: list[int], tokenizer: PreTrainedTokenizerBase, ends: Collection[int]) -> int:
    """How many tokens a text's first line has, with the one that ends it. Blank lines before it belong to it."""
    begun = False
    for number, token in enumerate(ids, start=1):
        piece = tokenizer.decode([token])
        if token in ends or (begun and "\n" in piece) or "\n" in piece.strip():
            return number
        begun = begun or bool(piece.strip())
    return len(ids)
