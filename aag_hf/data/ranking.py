"""LongLLMLingua's question-aware ranking of passages, many questions at a time."""

from collections.abc import Iterator, Sequence

import torch
from torch.nn.functional import cross_entropy
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

Row = tuple[tuple[int, ...], tuple[int, ...]]

# LongLLMLingua's restriction: without it a passage of any topic makes the question about as likely.
RESTRICTION = " We can get the answer to this question in the given documents."


def question_losses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[str, str]],
    batch_tokens: int = 2048,
) -> list[float]:
    """How unlikely each question is after its passage: the lower, the better the passage.

    The mean negative log-likelihood of the question's tokens, and those of LongLLMLingua's restriction, given the
    passage. A passage that several questions share is read once a batch, and only questions get logits.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        pairs: Passage and question.
        batch_tokens: Tokens scored at once, padding included.
    """
    rows = [_encode(tokenizer, model.config.max_position_embeddings, *pair) for pair in pairs]
    losses = [0.0] * len(rows)
    for batch in _batches(rows, batch_tokens):
        for place, loss in zip(batch, _score(model, [rows[place] for place in batch]), strict=True):
            losses[place] = loss
    return losses


def _encode(tokenizer: PreTrainedTokenizerBase, max_length: int, passage: str, question: str) -> Row:
    """The passage without its last token, and from that token on the question: the last one predicts the first."""
    ids = tokenizer(passage + question + RESTRICTION)["input_ids"]
    given = max(len(tokenizer(passage)["input_ids"]), 1)
    cut = max(len(ids) - max_length, 0)
    return tuple(ids[cut : max(given - 1, cut)]), tuple(ids[max(given - 1, cut) :])


def _batches(rows: list[Row], batch_tokens: int) -> Iterator[list[int]]:
    """Places of rows; passages of like length together, and those of one passage side by side."""
    batch: list[int] = []
    passages = longest = 0
    for place in sorted(range(len(rows)), key=lambda place: (len(rows[place][0]), rows[place])):
        passage, question = rows[place]
        passages += not batch or passage != rows[batch[-1]][0]
        longest = max(longest, len(question))
        if batch and passages * len(passage) + (len(batch) + 1) * longest > batch_tokens:
            yield batch
            batch, passages, longest = [], 1, len(question)
        batch.append(place)
    if batch:
        yield batch


@torch.inference_mode()
def _score(model: PreTrainedModel, rows: list[Row]) -> list[float]:
    passages = list(dict.fromkeys(passage for passage, _ in rows))
    owners = [passages.index(passage) for passage, _ in rows]
    passage_ids, passage_mask = _pad(passages, model.device)
    question_ids, question_mask = _pad([question for _, question in rows], model.device)
    cache = DynamicCache()
    if passage_ids.shape[1]:
        # No token sees the padding on its right, so this pass needs no mask; and nobody asks for its logits.
        model.base_model(input_ids=passage_ids, past_key_values=cache, use_cache=True)
        cache.batch_select_indices(torch.tensor(owners, device=model.device))
    starts = passage_mask[owners].sum(1, keepdim=True)
    logits = model(
        input_ids=question_ids,
        attention_mask=torch.cat([passage_mask[owners], question_mask], dim=1),
        position_ids=starts + torch.arange(question_ids.shape[1], device=model.device),
        past_key_values=cache,
        use_cache=True,
    ).logits[:, :-1]
    wanted = question_mask[:, 1:].bool()
    losses = cross_entropy(logits[wanted].float(), question_ids[:, 1:][wanted], reduction="none")
    return torch.stack([part.mean() for part in losses.split(wanted.sum(1).tolist())]).tolist()


def _pad(rows: Sequence[tuple[int, ...]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and their mask, (rows, tokens), padded on the right."""
    length = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (length - len(row))] for row in rows], dtype=torch.long)
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows], dtype=torch.long)
    return ids.to(device), mask.to(device)
