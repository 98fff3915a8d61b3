"""Reads tables as rows: DPR's passages and questions, and other files with tabs or commas."""

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from aag_hf.data.bad_rows import BadRows
from aag_hf.errors import InputError

TABLES = (".tsv", ".csv")
# A first line with one of these names is a header.
_NAMES = {"question", "text", "contents", "passage"}
# DPR's passages and questions have no header.
_PASSAGES = ["id", "text", "title"]
_QUESTIONS = ["question", "answers"]


def table_rows(path: Path, file: TextIO, bad: BadRows) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a table, with the names of its first line. A table without such a line must be DPR's.

    Args:
        path: The file's name.
        file: The file, opened without conversion of line ends.
        bad: Counts rows that have more or fewer fields than there are names, or a quotation mark without its second.

    Raises:
        InputError: The file is no such table, two columns have one name, or a row is bad.
    """
    first = file.readline()
    delimiter = "\t" if "\t" in first else ","
    names = next(csv.reader([first], delimiter=delimiter), [])
    with_head = not _NAMES.isdisjoint(name.strip().lower() for name in names)
    if not with_head:
        names = _names_without_head(path, names)
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}, line 1: column {name!r} stands twice: keep one.")
    lines = _Lines(file if with_head else chain([first], file), int(with_head))
    reader = csv.reader(lines, delimiter=delimiter)
    while True:
        lines.row.clear()
        wrong = ""
        try:
            fields = next(reader, None)
        except csv.Error as error:
            fields, wrong = [], str(error)
        if fields is None:
            return
        if lines.are_over or (len(lines.row) > 1 and _swallowed(lines.row, fields, delimiter)):
            wrong = (
                "a field begins with a quotation mark and ends without one (inside of quoted fields they are doubled)"
            )
            lines.give_back()
        elif fields and len(fields) != len(names):
            wrong = f"expected {len(names)} fields ({', '.join(names)}), found {len(fields)}"
        where = f"{path}, line {lines.number}"
        if wrong:
            bad.leave_out(InputError(f"{where}: {wrong}: correct or drop this row."))
        elif fields:
            yield where, dict(zip(names, fields, strict=True))


class _Lines:
    """The lines of a table, of which those after a row's first can be given again.

    Args:
        lines: The lines.
        number: How many were read before.

    Attributes:
        number: How many were given.
        row: Those since the caller cleared it.
        are_over: Whether one was asked for after the last. The reader of a table does so only within quotation marks.
    """

    def __init__(self, lines: Iterable[str], number: int):
        self._lines = iter(lines)
        self._again: deque[str] = deque()
        self.number = number
        self.row: list[str] = []
        self.are_over = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            self.row.append(self._again.popleft() if self._again else next(self._lines))
        except StopIteration:
            self.are_over = True
            raise
        self.number += 1
        return self.row[-1]

    def give_back(self) -> None:
        """Give the lines of the row again, but for the first."""
        self._again.extendleft(reversed(self.row[1:]))
        self.number -= len(self.row) - 1
        self.are_over = False


def _swallowed(row: Sequence[str], fields: Sequence[str], delimiter: str) -> bool:
    """Whether a row of several lines is made of several rows: a stray mark in one ended at a stray mark in another."""
    try:
        list(csv.reader(row, delimiter=delimiter, strict=True))
    except csv.Error:
        return True
    # A text of several lines may have commas, but tabs stand between fields.
    return delimiter == "\t" and any("\n" in field and "\t" in field for field in fields)


def _names_without_head(path: Path, fields: list[str]) -> list[str]:
    if len(fields) == len(_PASSAGES):
        return _PASSAGES
    if len(fields) == len(_QUESTIONS) and fields[1].lstrip().startswith("["):
        return _QUESTIONS
    if not fields:
        return []
    raise InputError(
        f"{path}: its first line names neither question nor text: expected names, or without them DPR's columns, "
        f"{', '.join(_PASSAGES)} or {', '.join(_QUESTIONS)} (a list)."
    )
