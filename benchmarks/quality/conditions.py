"""What the adapter of a question is made from when a reader is measured, and what that gives."""

import random
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from aag_hf.awakening import AwakeningModel, AwakeningOutput, memories_for
from aag_hf.awakening.documents import in_passages
from aag_hf.data.contexts import context_of
from aag_hf.evaluation.scores import score_predictions, summarise
from aag_hf.hyperlora import DocumentMemory

Records = list[dict[str, Any]]


class Measured:
    """A trained reader and the records that it is asked. The memory of each document is made once.

    Args:
        model: The reader.
        records: Whose questions it is asked.
        unrelated: Texts of another kind than the records' documents.
        seed: Seed of the choice of other documents.
    """

    def __init__(self, model: AwakeningModel, records: Records, unrelated: Sequence[str], seed: int):
        self.model = model
        self.records = records
        self.unrelated = list(unrelated)
        self.draw = random.Random(seed)  # nosec B311 # not for secrets
        self.questions = [record["question"] for record in records]
        self.texts = [context_of(r, "passages", model.config.adapter_passages) or "" for r in records]
        self.each = list(dict.fromkeys(self.texts))

    @cached_property
    def memory(self) -> DocumentMemory:
        """The memories of all documents, the unrelated ones last."""
        return self.model.memorize([*self.each, *self.unrelated])

    def measure(self, condition: str) -> dict[str, Any]:
        """Exact match under a condition, with its standard error, and the seconds it took.

        Args:
            condition: ``own``: the adapter is made from the question's document. ``another``: from another document.
                ``unrelated``: from a text of another kind. ``none``: from nothing. ``sum:K``: from the sum of K
                documents, one of which is its own. ``unrelated_sum:K``: from the sum of its own and K - 1 texts of
                another kind. ``chosen:K``: from that of K documents which BM25 ranks first. ``surest:K``: of the
                answers from each of K documents, the one with the highest score. ``text:K``: from one long text with a
                paragraph for each of K documents. ``by_passage:K``: from the passage of that text which BM25 ranks
                first.
        """
        start = time.perf_counter()
        kind, _, number = condition.partition(":")
        if kind == "surest":
            answers = self._surest(int(number))
        else:
            answers = self._generate(self._memories(kind, int(number or 1))).answers
        result = summarise(score_predictions(self.records, answers))
        return {
            "condition": condition,
            "questions": result["count"],
            "exact_match": round(result["exact_match"], 2),
            "standard_error": round(result["exact_match_stderr"], 2),
            "seconds": round(time.perf_counter() - start, 1),
        }

    def _memories(self, kind: str, count: int) -> DocumentMemory:
        if kind in ("text", "by_passage"):
            return self._of_long_texts(count, by_passage=kind == "by_passage")
        rows = [self.each.index(text) for text in self.texts]
        first, end = 0, len(self.each)
        if kind.startswith("unrelated"):
            first, end = end, end + len(self.unrelated)
        if kind in ("own", "none"):
            return self.memory[rows] * float(kind == "own")
        if kind in ("another", "unrelated"):
            return self.memory[[self._others(row, 1, first, end)[0] for row in rows]]
        chosen = []
        for row, question in zip(rows, self.questions):
            candidates = self.memory[[row, *self._others(row, count - 1, first, end)]]
            of_question = memories_for([question], candidates) if kind == "chosen" else candidates.sum()
            chosen.append(replace(of_question, texts=None))
        return DocumentMemory.cat(chosen)

    def _of_long_texts(self, count: int, by_passage: bool) -> DocumentMemory:
        order = self.draw.sample(self.each, len(self.each))
        memories: dict[str, DocumentMemory] = {}
        for start in range(0, len(order), count):
            together = order[start : start + count]
            text = "\n\n".join(together)
            memories |= dict.fromkeys(together, self.model.memorize(in_passages(text) if by_passage else [text]))
        chosen = [memories_for([question], memories[text]) for question, text in zip(self.questions, self.texts)]
        return DocumentMemory.cat([replace(memory, texts=None) for memory in chosen])

    def _surest(self, count: int) -> list[str]:
        rows = [self.each.index(text) for text in self.texts]
        candidates = [[row, *self._others(row, count - 1, 0, len(self.each))] for row in rows]
        best: list[tuple[float, str]] = [(-float("inf"), "")] * len(rows)
        for place in range(count):
            output = self._generate(self.memory[[of_question[place] for of_question in candidates]])
            assert output.scores is not None
            best = [max(old, new) for old, new in zip(best, zip(output.scores, output.answers))]
        return [answer for _, answer in best]

    def _others(self, row: int, count: int, first: int, end: int) -> list[int]:
        return self.draw.sample([other for other in range(first, end) if other != row], count)

    @torch.no_grad()
    def _generate(self, memory: DocumentMemory) -> AwakeningOutput:
        return self.model.generate(self.questions, memory=memory, batch_size=64)
