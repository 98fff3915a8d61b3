"""Reads tables as rows: DPR's passages and questions, and other files with tabs or commas."""

import csv
from collections.abc import Iterator
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
        bad: Counts rows that have more or fewer fields than there are names.

    Raises:
        InputError: The file is no such table, or a row is bad.
    """
    first = file.readline()
    delimiter = "\t" if "\t" in first else ","
    names = next(csv.reader([first], delimiter=delimiter), [])
    with_head = not _NAMES.isdisjoint(name.strip().lower() for name in names)
    if not with_head:
        names = _names_without_head(path, names)
    reader = csv.reader(_lines(first if not with_head else None, file), delimiter=delimiter)
    head = int(with_head)
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            bad.leave_out(InputError(f"{path}, line {reader.line_num + head}: {error}: correct or drop this row."))
            continue
        if fields is None:
            return
        where = f"{path}, line {reader.line_num + head}"
        if len(fields) == len(names):
            yield where, dict(zip(names, fields, strict=True))
        elif fields:
            wrong = f"{where}: expected {len(names)} fields ({', '.join(names)}), found {len(fields)}"
            bad.leave_out(InputError(f"{wrong}: correct or drop this row."))


def _lines(first: str | None, file: TextIO) -> Iterator[str]:
    if first is not None:
        yield first
    yield from file


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
