"""Reads tables as rows: DPR's passages and questions, other files with tabs or commas, and Parquet."""

import csv
import json
import math
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
# Rows per read.
_BATCH = 256


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


def parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a Parquet file.

    Raises:
        InputError: It is missing or damaged.
    """
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            encoded = [field.name for field in file.schema_arrow if field.type == pyarrow.json_()]
            for batch in file.iter_batches(_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    for name in encoded:
                        row[name] = None if row[name] is None else json.loads(row[name])
                    yield f"{path}, row {number}", without_nan(row)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except (pyarrow.ArrowException, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a whole Parquet file ({error}): make it again.") from None


def without_nan(value: Any) -> Any:
    """`value` with null instead of NaN and infinity, as in rows of JSON files."""
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return list(map(without_nan, value))
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
