"""Reads pools of passages, one passage after the other, without repeating any."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from aag_hf.data.bad_rows import BadRows
from aag_hf.data.formats import passages_of
from aag_hf.data.records import check_passage, is_blank
from aag_hf.data.sources import open_source
from aag_hf.errors import InputError

logger = logging.getLogger(__name__)

Passage = dict[str, Any]

# Passages per comparison of digests.
_BATCH = 4096


def read_pool(sources: Sequence[str | Path], skip_bad: int = 0) -> list[Passage]:
    """`iter_pool`, for a pool that fits in memory."""
    return list(iter_pool(sources, skip_bad))


def iter_pool(sources: Sequence[str | Path], skip_bad: int = 0) -> Iterator[Passage]:
    """The passages of some sources as ``{title, text}``, each once, without their scores and labels.

    Reads rows with title and text, DPR's tables, records with `ctxs`, and all formats of `passages_of`. If a row has
    only a title, the title serves as its text. Blank rows are left out. Warnings say how many.

    Args:
        sources: Files, folders of one data set, or ids of data sets on the Hub.
        skip_bad: How many malformed rows are left out, with a warning, instead of refused.

    Raises:
        InputError: A source cannot be read, a passage is malformed, or there is none.
    """
    return each_once(_all_passages(sources, skip_bad))


def each_once(passages: Iterable[Passage]) -> Iterator[Passage]:
    """Passages as ``{title, text}``, without repetitions. Eight bytes per passage stay in memory."""
    known = _Digests()
    batch: list[Passage] = []
    for passage in passages:
        batch.append({"title": passage["title"], "text": passage["text"]})
        if len(batch) == _BATCH:
            yield from known.new(batch)
            batch = []
    yield from known.new(batch)


class _Digests:
    """Digests of passages, in sorted arrays of which each is at least twice as long as the next."""

    def __init__(self) -> None:
        self._arrays: list[np.ndarray] = []

    def new(self, batch: list[Passage]) -> list[Passage]:
        """The digests of a batch that are new, each once. From then on they count as seen."""
        digests = np.array([_digest(passage) for passage in batch], dtype=np.uint64)
        unique, first = np.unique(digests, return_index=True)
        is_new = np.ones(len(unique), dtype=bool)
        for array in self._arrays:
            place = np.minimum(np.searchsorted(array, unique), len(array) - 1)
            is_new &= array[place] != unique
        if is_new.any():
            added = unique[is_new]
            while self._arrays and len(self._arrays[-1]) < 2 * len(added):
                added = np.sort(np.concatenate([self._arrays.pop(), added]))
            self._arrays.append(added)
        return [batch[place] for place in np.sort(first[is_new])]


def _digest(passage: Passage) -> int:
    text = f"{passage['title']}\0{passage['text']}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")


def _all_passages(sources: Sequence[str | Path], skip_bad: int) -> Iterator[Passage]:
    blank = titles = count = 0
    bad = BadRows(skip_bad)
    for source in sources:
        for where, row in open_source(str(source), None, bad)[1]:
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
                    count += 1
                    yield passage
    names = ", ".join(map(str, sources))
    if blank or titles:
        logger.warning("%s: %d blank passages left out, %d with a title alone.", names, blank, titles)
    bad.warn(names)
    if not count:
        raise InputError(f"{names}: no passages: expected rows with title and text, or with ctxs.")


def _title_and_text(passage: Any) -> tuple[Any, Any]:
    return (passage.get("title", ""), passage.get("text")) if isinstance(passage, dict) else (None, None)
