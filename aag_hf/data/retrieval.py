"""BM25 over a pool of passages."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from aag_hf.data.answers import has_answer
from aag_hf.data.jsonl import read_rows
from aag_hf.data.records import check_passage
from aag_hf.errors import InputError

Passage = dict[str, Any]


def pool_from_records(records: Iterable[dict[str, Any]]) -> list[Passage]:
    """The passages of all records as ``{title, text}``, each once, without their scores and labels."""
    return _each_once(passage for record in records for passage in record.get("ctxs", []))


def read_pool(paths: Sequence[str | Path]) -> list[Passage]:
    """The passages of files, each once: rows ``{title, text}``, or records with `ctxs`.

    Raises:
        InputError: A file cannot be read, a passage is blank or malformed, or there is none.
    """
    passages = []
    for path in paths:
        for where, row in read_rows(Path(path)):
            listed = isinstance(row, dict) and isinstance(row.get("ctxs"), list)
            for passage in row["ctxs"] if listed else [row]:
                passage = {"title": "", **passage} if isinstance(passage, dict) else passage
                check_passage(passage, where)
                passages.append(passage)
    if not passages:
        raise InputError(f"{', '.join(map(str, paths))}: no passages: expected rows with title and text, or with ctxs.")
    return _each_once(passages)


class Bm25Retriever:
    """Finds passages by the words they share with a question.

    Args:
        passages: The pool, ``{title, text}``; title and text are both searched.

    Raises:
        InputError: The pool is empty.
    """

    def __init__(self, passages: Sequence[Passage]):
        import bm25s

        if not passages:
            raise InputError("the pool has no passages: give at least one.")
        self.passages = _each_once(passages)
        self._tokenize = bm25s.tokenize
        self._index = bm25s.BM25()
        self._index.index(self._tokens([f"{p['title']} {p['text']}" for p in self.passages]), show_progress=False)

    def search(
        self, questions: Sequence[str], top_k: int, answers: Sequence[Sequence[str]] | None = None
    ) -> list[list[Passage]]:
        """The best passages of each question, best first, as ``{title, text, score}``.

        Args:
            questions: What to search for.
            top_k: Passages a question; all of them where the pool is smaller.
            answers: The acceptable answers of each question. They mark each passage found with `has_answer` and have
                no part in the ranking.

        Raises:
            InputError: `top_k` is below one, or `answers` has another length than `questions`.
        """
        if top_k < 1:
            raise InputError(f"top_k is {top_k}: ask for at least one passage.")
        if answers is not None and len(answers) != len(questions):
            raise InputError(f"answers has {len(answers)} entries, questions has {len(questions)}: pass one for each.")
        if not questions:
            return []
        k = min(top_k, len(self.passages))
        places, scores = self._index.retrieve(self._tokens(questions), k=k, show_progress=False)
        found = [
            [{**self.passages[place], "score": float(score)} for place, score in zip(*row, strict=True)]
            for row in zip(places, scores, strict=True)
        ]
        for ctxs, accepted in zip(found, answers or []):
            for passage in ctxs:
                passage["has_answer"] = has_answer(passage["text"], accepted)
        return found

    def _tokens(self, texts: Sequence[str]) -> Any:
        return self._tokenize(list(texts), stopwords="en", show_progress=False)


def recall_at(records: Sequence[dict[str, Any]], k: int) -> float:
    """The share of records with an answer in their first `k` passages."""
    return sum(any(passage["has_answer"] for passage in record["ctxs"][:k]) for record in records) / len(records)


def _each_once(passages: Iterable[Passage]) -> list[Passage]:
    unique = dict.fromkeys((passage["title"], passage["text"]) for passage in passages)
    return [{"title": title, "text": text} for title, text in unique]
