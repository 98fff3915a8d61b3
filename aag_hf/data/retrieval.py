"""BM25 over a pool of passages."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from aag_hf.data.answers import has_answer, one_form
from aag_hf.data.bad_rows import BadRows
from aag_hf.data.files import read_rows
from aag_hf.data.formats import passages_of
from aag_hf.data.records import check_passage, is_blank
from aag_hf.errors import InputError

logger = logging.getLogger(__name__)

Passage = dict[str, Any]


def pool_from_records(records: Iterable[dict[str, Any]]) -> list[Passage]:
    """The passages of all records as ``{title, text}``, each once, without their scores and labels."""
    return _each_once(passage for record in records for passage in record.get("ctxs", []))


def read_pool(paths: Sequence[str | Path], skip_bad: int = 0) -> list[Passage]:
    """The passages of files, each once: rows ``{title, text}``, records with `ctxs`, or what `passages_of` understands.

    Rows with a title alone are found by it and read as it; blank ones are left out. Warnings say how many.

    Args:
        paths: The files.
        skip_bad: How many malformed rows are left out, with a warning, instead of refused.

    Raises:
        InputError: A file cannot be read, a passage is malformed, or there is none.
    """
    passages = []
    blank, titles = 0, 0
    bad = BadRows(skip_bad)
    for path in paths:
        for where, row in read_rows(Path(path), bad):
            for passage in passages_of(row):
                title, text = _title_and_text(passage)
                if is_blank(text) and is_blank(title):
                    blank += 1
                    continue
                if is_blank(text) and isinstance(title, str):
                    titles += 1
                    passage = passage | {"text": title}
                try:
                    check_passage(passage, where)
                except InputError as error:
                    bad.leave_out(error)
                else:
                    passages.append(passage)
    files = ", ".join(map(str, paths))
    if blank or titles:
        logger.warning("%s: %d blank passages left out, %d with a title alone.", files, blank, titles)
    bad.warn(files)
    if not passages:
        raise InputError(f"{files}: no passages: expected rows with title and text, or with ctxs.")
    return _each_once(passages)


def _title_and_text(passage: Any) -> tuple[Any, Any]:
    return (passage.get("title", ""), passage.get("text")) if isinstance(passage, dict) else (None, None)


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
        self, questions: Sequence[str], top_k: int, answers: Sequence[Sequence[str] | None] | None = None
    ) -> list[list[Passage]]:
        """The best passages of each question, best first, as ``{title, text, score}``.

        Args:
            questions: What to search for.
            top_k: Passages a question; all of them where the pool is smaller.
            answers: The acceptable answers of each question, if it has any. They mark each passage found with
                `has_answer` and have no part in the ranking.

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
                if accepted:
                    passage["has_answer"] = has_answer(passage["text"], accepted)
        return found

    def _tokens(self, texts: Sequence[str]) -> Any:
        # One letter or digit is a word too: the C of "vitamin C".
        return self._tokenize(
            [one_form(text) for text in texts],
            lower=False,
            token_pattern=r"(?u)\b\w+\b",
            stopwords="en",
            show_progress=False,
        )


def recall_at(records: Sequence[dict[str, Any]], k: int) -> float | None:
    """The share of records with an answer in their first `k` passages; ``None`` where no record has answers."""
    marked = [[passage["has_answer"] for passage in r["ctxs"][:k]] for r in records if "has_answer" in r["ctxs"][0]]
    return sum(map(any, marked)) / len(marked) if marked else None


def _each_once(passages: Iterable[Passage]) -> list[Passage]:
    unique = dict.fromkeys((passage["title"], passage["text"]) for passage in passages)
    return [{"title": title, "text": text} for title, text in unique]
