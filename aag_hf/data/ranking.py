"""LongLLMLingua's question-aware ranking of passages, for many questions at a time."""

from collections.abc import Iterator, Sequence
from inspect import signature

import torch
from torch.nn.functional import cross_entropy
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

Row = tuple[tuple[int, ...], tuple[int, ...]]

# LongLLMLingua's restriction. Without it, passages of any topic make the question about equally likely.
RESTRICTION = " We can get the answer to this question in the given documents."


def question_losses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[str, str]],
    batch_tokens: int = 2048,
) -> list[float]:
    """The loss of each question after its passage. The lower it is, the better the passage.

    This is the mean negative log-likelihood of the tokens of the question and of LongLLMLingua's restriction, given the
    passage. If the model's attention allows it, a passage that several questions share is read once per batch, and only
    questions get logits.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        pairs: Passage and question.
        batch_tokens: Tokens per forward pass, padding included.
    """
    max_length = most_tokens(model)
    rows = [_encode(tokenizer, max_length, *pair) for pair in pairs]
    score = _score if _attends_everywhere(model) else _score_whole
    losses = [0.0] * len(rows)
    for batch in _batches(rows, batch_tokens):
        for place, loss in zip(batch, score(model, [rows[place] for place in batch]), strict=True):
            losses[place] = loss
    return losses


def most_tokens(model: PreTrainedModel) -> int | None:
    """The most tokens that a model reads. ``None`` if its configuration sets no limit."""
    config = model.config.get_text_config()
    limits = (getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "max_seq_len"))
    return next((limit for limit in limits if limit), None)


def _attends_everywhere(model: PreTrainedModel) -> bool:
    """Whether a question can continue a padded passage: each layer attends to all tokens before, by given positions."""
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or []
    windowed = getattr(config, "sliding_window", None) or any(kind != "full_attention" for kind in kinds)
    return not windowed and "position_ids" in signature(model.forward).parameters


def _encode(tokenizer: PreTrainedTokenizerBase, max_length: int | None, passage: str, question: str) -> Row:
    """The passage without its last token, and the question after that token, which predicts its first one."""
    ids = tokenizer(passage + question + RESTRICTION)["input_ids"]
    given = max(len(tokenizer(passage)["input_ids"]), 1)
    cut = 0 if max_length is None else max(len(ids) - max_length, 0)
    return tuple(ids[cut : max(given - 1, cut)]), tuple(ids[max(given - 1, cut) :])


def _batches(rows: list[Row], batch_tokens: int) -> Iterator[list[int]]:
    """An order of rows: passages of similar length together, and rows of one passage side by side."""
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
        # No token sees the padding on its right, so this pass needs no mask. Its logits are not used.
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


@torch.inference_mode()
def _score_whole(model: PreTrainedModel, rows: list[Row]) -> list[float]:
    """The same for any model. Each passage is read with its question, and padded where no token sees it."""
    ids, mask = _pad([(*passage, *question) for passage, question in rows], model.device)
    logits = model(input_ids=ids, attention_mask=mask).logits
    losses = []
    for row, (passage, question) in enumerate(rows):
        start, end = len(passage), len(passage) + len(question) - 1
        losses.append(cross_entropy(logits[row, start:end].float(), ids[row, start + 1 : end + 1]))
    return torch.stack(losses).tolist()


def _pad(rows: Sequence[tuple[int, ...]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and their mask, (rows, tokens), padded on the right."""
    length = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (length - len(row))] for row in rows], dtype=torch.long)
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows], dtype=torch.long)
    return ids.to(device), mask.to(device)
