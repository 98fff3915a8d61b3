"""Compresses the passages of each question to a short context with LongLLMLingua."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from aag_hf.data.answers import has_answer
from aag_hf.data.ranking import question_losses
from aag_hf.data.records import check_passage
from aag_hf.errors import InputError

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[^a-z])")


class ContextCompressor:
    """Writes `compressed_context`: the passages or tokens of `ctxs` that make the question most likely.

    Ranking alone suits small models. Their judgement of single tokens loses most answers. Dropping tokens too suits
    large models, and follows the settings of Awakening Augmented Generation.

    Args:
        model: A causal language model, any dtype.
        tokenizer: Its tokenizer.
        target_tokens: How long a context should be. Ranking alone keeps whole passages, best first: as many as fit, and
            always the best one. At token level short rests stay, so contexts are somewhat longer.
        token_level: Also drop tokens inside the passages.
        sentences: Rank and keep single sentences, each with its passage's title, instead of whole passages.
        context_budget: At token level: tokens beyond the target that whole passages may fill before tokens are dropped.
        iterative_size: At token level: tokens per window.
        batch_tokens: Tokens per forward pass of the ranking.

    Raises:
        InputError: `target_tokens` or `iterative_size` is below 1.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        target_tokens: int = 64,
        token_level: bool = False,
        sentences: bool = False,
        *,
        context_budget: int = 100,
        iterative_size: int = 200,
        batch_tokens: int = 2048,
    ):
        for name, value in (("target_tokens", target_tokens), ("iterative_size", iterative_size)):
            if value < 1:
                raise InputError(f"{name} is {value}: expected at least one token.")
        self.model = model
        self.tokenizer = tokenizer
        self.target_tokens = target_tokens
        self.token_level = token_level
        self.sentences = sentences
        self.context_budget = context_budget
        self.iterative_size = iterative_size
        self.batch_tokens = batch_tokens

    def compress(self, records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The records with `compressed_context`, which holds only context, without instruction or question.

        Raises:
            InputError: A record has no passages, or a passage is blank; the message names its id.
        """
        passages = [passage_texts(record, self.sentences) for record in records]
        training = self.model.training
        self.model.eval()
        try:
            losses = self._rank(records, passages)
            shorten = self._drop_tokens if self.token_level else self._keep_whole_passages
            texts = map(shorten, passages, losses, [record["question"] for record in records])
            return [record | {"compressed_context": text} for record, text in zip(records, texts, strict=True)]
        finally:
            self.model.train(training)

    def _rank(self, records: Sequence[dict[str, Any]], passages: list[list[str]]) -> list[list[float]]:
        pairs = [(text, record["question"]) for record, texts in zip(records, passages, strict=True) for text in texts]
        losses = iter(question_losses(self.model, self.tokenizer, pairs, self.batch_tokens))
        return [[next(losses) for _ in texts] for texts in passages]

    def _keep_whole_passages(self, passages: list[str], losses: list[float], _: str) -> str:
        if not passages:
            return ""
        best, *others = sorted(range(len(passages)), key=losses.__getitem__)
        kept = passages[best]
        for place in others:
            longer = f"{kept}\n\n{passages[place]}"
            if count_tokens(self.tokenizer, longer) > self.target_tokens:
                break
            kept = longer
        return kept

    def _drop_tokens(self, passages: list[str], losses: list[float], question: str) -> str:
        if not passages:
            return ""
        from aag_hf.data.longllmlingua import LongLLMLingua

        return LongLLMLingua(self.model, self.tokenizer).compress_passages(
            passages,
            losses,
            question,
            target_tokens=self.target_tokens,
            context_budget=self.context_budget,
            iterative_size=self.iterative_size,
        )


def compression_report(records: Iterable[dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> dict[str, float]:
    """What compression cost: mean tokens of a question's passages and of its compressed context, and the share of
    questions whose answer stands in each; `answer_survival` is the share of those before that remain after.
    """
    count = tokens_before = tokens_after = had = has = survived = 0
    for record in records:
        before, after = "\n\n".join(passage_texts(record)), record["compressed_context"]
        stood, stands = (has_answer(text, record["answers"]) for text in (before, after))
        count += 1
        tokens_before += count_tokens(tokenizer, before)
        tokens_after += count_tokens(tokenizer, after)
        had += stood
        has += stands
        survived += stood and stands
    return {
        "questions": count,
        "tokens_before": tokens_before / count,
        "tokens_after": tokens_after / count,
        "answer_before": had / count,
        "answer_after": has / count,
        "answer_survival": survived / max(had, 1),
    }


def count_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """The number of tokens of `text`, without special ones."""
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def passage_texts(record: dict[str, Any], sentences: bool = False) -> list[str]:
    """The record's passages, or their sentences, as plain texts in their order. Empty if retrieval found none.

    Raises:
        InputError: The record was never searched for, or a passage is blank; the message names the record's id.
    """
    where = f"record {record['id']!r}"
    if record.get("ctxs") is None:
        raise InputError(f"{where}: field 'ctxs': has no passages to compress: run `aag retrieve` or drop the record.")
    for number, passage in enumerate(record["ctxs"]):
        check_passage({"title": "", **passage}, f"{where}, ctxs[{number}]")
    return [
        _passage_text(passage.get("title", ""), text)
        for passage in record["ctxs"]
        for text in (_SENTENCE_END.split(passage["text"].strip()) if sentences else [passage["text"].strip()])
    ]


def _passage_text(title: str, text: str) -> str:
    # A passage from the middle of an article often does not say what it is about; its title does.
    return text if title in text else f"{title}: {text}"
