"""LongLLMLingua's question-aware ranking of passages, many questions at a time."""

from collections.abc import Iterator, Sequence

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

# LongLLMLingua's restriction: without it a passage of any topic makes the question about as likely.
_RESTRICTION = " We can get the answer to this question in the given documents."


def question_losses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[str, str]],
    batch_tokens: int = 2048,
) -> list[float]:
    """How unlikely each question is after its passage: the lower, the better the passage.

    The mean negative log-likelihood of the question's tokens, and those of LongLLMLingua's restriction, given the
    passage. Only the question's positions get logits, and no key or value is kept.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        pairs: Passage and question.
        batch_tokens: Tokens scored at once, padding included.
    """
    rows = [_encode(tokenizer, model.config.max_position_embeddings, *pair) for pair in pairs]
    losses = [0.0] * len(rows)
    for batch in _batches([len(ids) for ids, _ in rows], batch_tokens):
        for place, loss in zip(batch, _score(model, [rows[place] for place in batch]), strict=True):
            losses[place] = loss
    return losses


def _encode(tokenizer: PreTrainedTokenizerBase, max_length: int, passage: str, question: str) -> tuple[list[int], int]:
    """Tokens of both texts, and how many of them the question has."""
    ids = tokenizer(passage + question + _RESTRICTION)["input_ids"]
    scored = len(ids) - len(tokenizer(passage)["input_ids"])
    return ids[-max_length:], min(scored, max_length - 1)


def _batches(lengths: list[int], batch_tokens: int) -> Iterator[list[int]]:
    """Places of rows, rows of like length together."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[place] > batch_tokens:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


@torch.inference_mode()
def _score(model: PreTrainedModel, rows: list[tuple[list[int], int]]) -> list[float]:
    length, scored = max(len(ids) for ids, _ in rows), max(count for _, count in rows)
    # Padding on the left puts every question at the end, where one slice of logits covers them all.
    input_ids = torch.zeros(len(rows), length, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    wanted = torch.zeros(len(rows), scored, dtype=torch.bool)
    for row, (ids, count) in enumerate(rows):
        input_ids[row, length - len(ids) :] = torch.tensor(ids)
        attention_mask[row, length - len(ids) :] = 1
        wanted[row, scored - count :] = True
    position_ids = (attention_mask.cumsum(1) - 1).clamp(min=0)
    input_ids, wanted = input_ids.to(model.device), wanted.to(model.device)
    logits = model(
        input_ids=input_ids,
        attention_mask=attention_mask.to(model.device),
        position_ids=position_ids.to(model.device),
        use_cache=False,
        logits_to_keep=scored + 1,
    ).logits[:, :-1]
    losses = cross_entropy(logits[wanted].float(), input_ids[:, -scored:][wanted], reduction="none")
    parts = losses.split(wanted.sum(1).tolist())
    return torch.stack([part.mean() for part in parts]).tolist()
