"""What is in a source of records or passages, in figures, whatever its format."""

import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

from aag_hf.data.answers import has_answer, one_form
from aag_hf.data.bad_rows import BadRows
from aag_hf.data.formats import passages_of, to_passage, to_record
from aag_hf.data.records import Ids, check_passage, check_record, drop_blank_passages, single_rows
from aag_hf.data.sources import open_source
from aag_hf.errors import InputError

# More bad rows than any file has.
_ALL = 2**62
_SHOWN = 3
_WIDEST = 200


def describe_source(
    source: str, split: str | None = None, config_name: str | None = None, revision: str | None = None
) -> Iterator[str]:
    """Lines about a source: rows, bad rows, fields, lengths, answers, duplicates and the first three records.

    Args:
        source: As in [`~aag_hf.data.read_records`]; a pool of passages too.
        split: As there.
        config_name: As there.
        revision: As there.

    Raises:
        InputError: The source cannot be read, or has no rows.
    """
    bad = BadRows(_ALL)
    name, rows = open_source(source, split, bad, config_name, revision)
    summary: _Summary | None = None
    for position, (where, row) in enumerate(single_rows(rows)):
        if summary is None:
            summary = _Questions(name) if _is_question(row) else _Passages(name)
        try:
            summary.add(row, position, where)
        except InputError as error:
            bad.leave_out(error)
    if summary is None and not bad.count:
        raise InputError(f"{source}: holds no rows.")
    kind, count = (summary.kind, summary.rows) if summary else ("rows", 0)
    yield f"{source}: {count:,} {kind}, and {bad.count:,} rows that cannot be used"
    if bad.first:
        yield f"  the first of those: {bad.first}"
    if summary:
        yield from summary.lines()


class _Numbers:
    """Mean, least and most of some numbers."""

    def __init__(self) -> None:
        self.count = self.total = self.most = 0
        self.least: int | None = None

    def add(self, number: int) -> None:
        self.count += 1
        self.total += number
        self.most = max(self.most, number)
        self.least = number if self.least is None else min(self.least, number)

    def __str__(self) -> str:
        return f"{self.total / self.count:.1f} on average, {self.least} to {self.most}"


class _Summary:
    kind = "rows"

    def __init__(self, name: str):
        self.name = name
        self.rows = 0
        self.fields: Counter[str] = Counter()
        self.numbers: dict[str, _Numbers] = {}
        self.first: list[dict[str, Any]] = []
        self.seen: set[int] = set()
        self.duplicates = 0

    def add(self, row: Any, position: int, where: str) -> None:
        raise NotImplementedError

    def count(self, row: dict[str, Any], text: str) -> None:
        self.rows += 1
        self.fields.update(row.keys())
        if len(self.first) < _SHOWN:
            self.first.append(row)
        digest = hash(one_form(text))
        self.duplicates += digest in self.seen
        self.seen.add(digest)

    def measure(self, what: str, number: int) -> None:
        self.numbers.setdefault(what, _Numbers()).add(number)

    def lines(self) -> Iterator[str]:
        yield "fields: " + ", ".join(
            name if count == self.rows else f"{name} ({count:,})" for name, count in self.fields.items()
        )
        for what, numbers in self.numbers.items():
            yield f"{what}: {numbers}"


class _Passages(_Summary):
    kind = "passages"

    def add(self, row: Any, position: int, where: str) -> None:
        for passage in passages_of(row):
            check_passage(passage, where)
            self.count(passage, f"{passage['title']}\0{passage['text']}")
            self.measure("words of a passage", len(passage["text"].split()))

    def lines(self) -> Iterator[str]:
        yield from super().lines()
        yield f"passages that stand there before: {self.duplicates:,}"
        yield from _first(self.first)


class _Questions(_Summary):
    kind = "records"

    def __init__(self, name: str):
        super().__init__(name)
        self.ids = Ids()
        self.answered = self.with_passages = self.found = self.passages = self.found_in = 0

    def add(self, row: Any, position: int, where: str) -> None:
        if not isinstance(row, dict):
            raise InputError(f"{where}: expected a JSON object, found a JSON {type(row).__name__}.")
        record = to_record(row, f"{self.name}-{position}")
        drop_blank_passages(record)
        check_record(record, where, need_answers=False)
        self.ids.add(record["id"], where)
        self.count(record, record["question"])
        answers = record.get("answers") or []
        self.measure("words of a question", len(record["question"].split()))
        self.measure("answers of a question", len(answers))
        for answer in answers:
            self.measure("words of an answer", len(answer.split()))
        self.answered += bool(answers)
        ctxs = record.get("ctxs")
        if ctxs is None:
            return
        self.measure("passages of a question", len(ctxs))
        for passage in ctxs:
            self.measure("words of a passage", len(passage["text"].split()))
        if answers:
            marks = [has_answer(passage["text"], answers) for passage in ctxs]
            self.with_passages += 1
            self.found += any(marks)
            self.passages += len(marks)
            self.found_in += sum(marks)

    def lines(self) -> Iterator[str]:
        yield from super().lines()
        yield f"without answers: {self.rows - self.answered:,}"
        yield f"questions that stand there before: {self.duplicates:,}"
        if self.with_passages:
            share = 100 * self.found_in / max(self.passages, 1)
            yield (
                f"with the answer: {share:.1f} % of the passages, one or more of "
                f"{100 * self.found / self.with_passages:.1f} % of the questions"
            )
        yield from _first(self.first)


def _is_question(row: Any) -> bool:
    if not isinstance(row, dict):
        return True
    return "question" in to_record(row, "") or "text" not in to_passage(row)


def _first(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield f"the first {len(rows)}:"
    for row in islice(rows, _SHOWN):
        text = json.dumps(row, ensure_ascii=False, default=str)
        yield "  " + (text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…")
