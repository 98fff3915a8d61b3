"""Records: what every stage reads and writes, one JSON object per question.

A record has `id`, `question` and `answers`, and may have `target`, `ctxs`, `compressed_context`, `generated_context`,
`generated_contexts` and `features`. Other columns pass through untouched.
"""

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from aag_hf.data.bad_rows import BadRows
from aag_hf.data.formats import rows_of, to_record
from aag_hf.data.jsonl import write_rows
from aag_hf.data.sources import Rows, dataset_rows, open_source
from aag_hf.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

_OPTIONAL_TEXTS = ("compressed_context", "generated_context")


def read_records(
    source: "str | os.PathLike[str] | Dataset",
    split: str | None = None,
    *,
    need_answers: bool = True,
    skip_bad: int = 0,
    config_name: str | None = None,
    revision: str | None = None,
) -> list[dict[str, Any]]:
    """Read records and check them.

    Args:
        source: A file (JSON Lines, a JSON list, a table, each also in gzip, or Parquet); a folder with one such file
            per split, or one that ``Dataset.save_to_disk`` wrote; a `datasets.Dataset`; or the id of a data set on the
            Hub. Rows may have any format of `to_record`. Rows without an id get one from source and position.
        split: Which split of a folder or a data set on the Hub.
        need_answers: Refuse questions without answers.
        skip_bad: How many rows that break the contract may be left out, with a warning.
        config_name: Which configuration of a data set on the Hub.
        revision: Which branch, tag or commit of it.

    Returns:
        The records in their order, each with `id`, `question` and `answers`. If a record has blank passages and others,
        the blank ones are left out, and a warning says how many.

    Raises:
        InputError: The source cannot be read, is empty, or a record breaks the contract; the message names the place.
    """
    return list(
        iter_records(
            source, split, need_answers=need_answers, skip_bad=skip_bad, config_name=config_name, revision=revision
        )
    )


def iter_records(
    source: "str | os.PathLike[str] | Dataset",
    split: str | None = None,
    *,
    need_answers: bool = True,
    skip_bad: int = 0,
    config_name: str | None = None,
    revision: str | None = None,
) -> Iterator[dict[str, Any]]:
    """The records of `read_records`, one after the other. Memory holds a few of them, and all ids.

    Args:
        source: As in `read_records`.
        split: As there.
        need_answers: As there.
        skip_bad: As there.
        config_name: As there.
        revision: As there.

    Raises:
        InputError: As there, when the bad record is reached.
    """
    bad = BadRows(skip_bad)
    if isinstance(source, (str, os.PathLike)):
        name, rows = open_source(str(source), split, bad, config_name, revision)
    elif hasattr(source, "column_names") and not isinstance(source, dict):
        name, rows = "dataset", dataset_rows(source, "data set")
    else:
        raise InputError(f"source is a {type(source).__name__}: expected a path, a Hub id or a datasets.Dataset.")
    ids = Ids()
    blank = 0
    for position, (where, row) in enumerate(single_rows(rows)):
        try:
            if not isinstance(row, dict):
                raise InputError(f"{where}: expected a JSON object, found a JSON {type(row).__name__}.")
            record = to_record(row, f"{name}-{position}")
            blank += drop_blank_passages(record)
            check_record(record, where, need_answers)
            ids.add(record["id"], where)
        except InputError as error:
            bad.leave_out(error)
        else:
            if not record.get("answers"):
                record.pop("answers", None)
            yield record
    if blank:
        logger.warning("%s: %d blank passages left out.", name, blank)
    bad.warn(name)
    if not ids:
        raise InputError(f"{source}: holds no records: expected one JSON object for each question.")


def write_records(records: Iterable[dict[str, Any]], path: str | os.PathLike[str]) -> None:
    """Check records and write them to `path`, which appears only when it is complete.

    Args:
        records: The records; each is written before the next is asked for.
        path: The file, ``.jsonl``, ``.jsonl.gz`` or ``.parquet``.

    Raises:
        InputError: A record breaks the contract, an id stands twice, or the name has another ending.
    """

    def checked() -> Iterator[dict[str, Any]]:
        ids = Ids()
        for number, record in enumerate(records, start=1):
            check_record(record, f"record {number} for {path}", need_answers=False)
            ids.add(record["id"], f"record {number} for {path}")
            yield record

    write_rows(checked(), path)


def single_rows(rows: Rows) -> Rows:
    """Rows of which each is one record: some formats hold several questions in a row."""
    for where, row in rows:
        for number, single in enumerate(rows_of(row), start=1):
            yield (where if single is row else f"{where}, question {number}"), single


class Ids:
    """The ids so far, with the place of each."""

    def __init__(self) -> None:
        self._where: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._where)

    def add(self, identifier: str, where: str) -> None:
        """Add one more id.

        Raises:
            InputError: The id stands twice.
        """
        if identifier in self._where:
            raise InputError(
                f"{where}: id {identifier!r} already stands at {self._where[identifier]}: give each record its own id."
            )
        self._where[identifier] = where


def drop_blank_passages(record: dict[str, Any]) -> int:
    """Leave out the blank passages of `record`, if it has others. Returns how many there were."""
    ctxs = record.get("ctxs")
    if not isinstance(ctxs, list):
        return 0
    good = [passage for passage in ctxs if not (isinstance(passage, dict) and is_blank(passage.get("text")))]
    if good:
        record["ctxs"] = good
    return len(ctxs) - len(good) if good else 0


def check_record(record: dict[str, Any], where: str, need_answers: bool = True) -> None:
    """Refuse a record that breaks the contract.

    Args:
        record: The record.
        where: Its place, which begins the message, such as "train.jsonl, line 3".
        need_answers: Refuse one without answers.

    Raises:
        InputError: Names the place, the field, what was expected and what was found.
    """
    if not isinstance(record, dict):
        raise InputError(f"{where}: expected an object with id and question, found {_shown(record)}.")
    for field in ("id", "question"):
        _require(_is_text(record.get(field)), where, record, field, "a string that is not blank")
    answers = record.get("answers")
    listed = isinstance(answers, list) and bool(answers) and all(map(_is_text, answers))
    unanswered = not need_answers and answers in (None, [])
    _require(listed or unanswered, where, record, "answers", "a list of one or more strings that are not blank")
    if "target" in record:
        _require(_is_text(record["target"]), where, record, "target", "a string that is not blank")
    for field in _OPTIONAL_TEXTS:
        if field in record:
            _require(isinstance(record[field], str), where, record, field, "a string")
    if "generated_contexts" in record:
        drafts = record["generated_contexts"]
        listed = isinstance(drafts, list) and bool(drafts) and all(map(_is_draft, drafts))
        expected = "a list of one or more objects with a text and a finite number as score"
        _require(listed, where, record, "generated_contexts", expected)
    if "features" in record:
        features = record["features"]
        numbers = isinstance(features, list) and bool(features) and all(map(_is_number, features))
        _require(numbers, where, record, "features", "a list of finite numbers")
    if "ctxs" in record:
        _require(isinstance(record["ctxs"], list), where, record, "ctxs", "a list of passages")
        for number, passage in enumerate(record["ctxs"]):
            check_passage(passage, f"{where}, ctxs[{number}]")


def check_passage(passage: Any, where: str) -> None:
    """Refuse a passage that is not ``{title, text, score?, has_answer?}`` with text in it.

    Raises:
        InputError: Names the place, the field, what was expected and what was found.
    """
    if not isinstance(passage, dict):
        raise InputError(f"{where}: expected an object with title and text, found {_shown(passage)}.")
    _require(isinstance(passage.get("title"), str), where, passage, "title", "a string")
    _require(_is_text(passage.get("text")), where, passage, "text", "a string that is not blank")
    if "score" in passage:
        _require(_is_number(passage["score"]), where, passage, "score", "a finite number")
    if "has_answer" in passage:
        _require(isinstance(passage["has_answer"], bool), where, passage, "has_answer", "true or false")


def _require(holds: bool, where: str, row: dict[str, Any], field: str, expected: str) -> None:
    if not holds:
        found = _shown(row[field]) if field in row else "no such field"
        raise InputError(f"{where}: field {field!r}: expected {expected}, found {found}: correct or drop this row.")


def _shown(value: Any) -> str:
    # Python does not turn an integer of thousands of digits into text.
    text = f"a number of {value.bit_length()} bits" if isinstance(value, int) and abs(value) > 10**60 else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_draft(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("text"), str) and _is_number(value.get("score"))


def is_blank(value: Any) -> bool:
    """Whether it is a string without visible characters."""
    return isinstance(value, str) and not value.strip()


def _is_number(value: Any) -> bool:
    # An integer may be larger than any float, and every comparison with NaN is false.
    largest = sys.float_info.max
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -largest <= value <= largest
