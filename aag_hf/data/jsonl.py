"""JSON files as rows, each with the place it came from; files that are whole or absent."""

import codecs
import gzip
import json
import logging
import math
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from aag_hf.errors import InputError
from aag_hf.locks import temporary_file

logger = logging.getLogger(__name__)

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz")
# Levels of lists and objects in a row; Python's own limit differs from place to place.
DEEPEST = 100


def file_stem(path: Path) -> str:
    """The file's name without ``.jsonl``, ``.json`` and ``.gz``."""
    return path.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".json")


def read_rows(path: Path, skipped: list[InputError] | None = None) -> Iterator[tuple[str, Any]]:
    """Rows of a JSON Lines file, or of a JSON file that holds a list, with "file, line 3" for messages.

    NaN and infinity, which some programs write where a number is missing and JSON does not have, are read as null; a
    warning says how many.

    Args:
        path: The file.
        skipped: Takes what is wrong with lines that are not JSON, and the others are read; without it they are refused.

    Raises:
        InputError: The file is missing, of another kind, damaged or not JSON.
    """
    if not path.name.endswith(SUFFIXES):
        raise InputError(f"{path}: unknown kind of file: expected a name ending in {', '.join(SUFFIXES)}.")
    lines = path.name.removesuffix(".gz").endswith(".jsonl")
    constants: list[str] = []
    try:
        # A byte order mark, which programs on Windows write, is no part of the text.
        encoding = "utf-8-sig"
        with gzip.open(path, "rt", encoding=encoding) if path.suffix == ".gz" else path.open(encoding=encoding) as file:
            if lines:
                yield from _numbered_lines(path, file, constants, skipped)
            else:
                yield from _list_items(path, file.read(), constants)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise InputError(f"{path}: not a whole gzip file: make it again or decompress it yourself.") from None
    except UnicodeDecodeError as error:
        utf16 = ", perhaps UTF-16" if error.object[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else ""
        raise InputError(
            f"{path}: not UTF-8 text{utf16} ({error.reason} at byte {error.start}): convert it to UTF-8."
        ) from None
    if constants:
        logger.warning(
            "%s: %d numbers are NaN or infinite, which JSON does not have: read as null.", path, len(constants)
        )


def write_rows(rows: Iterable[Any], path: str | os.PathLike[str]) -> None:
    """Write one JSON object a line; `path` (``.jsonl`` or ``.jsonl.gz``) appears only when it is complete.

    Raises:
        InputError: The name has another ending.
    """
    path = Path(path)
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise InputError(f"{path}: cannot write this kind of file: end the name in .jsonl or .jsonl.gz.")
    data = b"".join(encode_row(row) for row in rows)
    # Without a time stamp in the header, equal rows make equal files.
    write_whole(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data, path)


def encode_row(row: Any) -> bytes:
    """One line of a JSON Lines file.

    Raises:
        InputError: It holds what JSON or UTF-8 cannot: NaN, half a character, an object of another kind.
    """
    try:
        return (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError, RecursionError) as error:
        name = f"row {row['id']!r}" if isinstance(row, dict) and "id" in row else "a row"
        raise InputError(f"{name} cannot be written as JSON: {error}: correct or drop it.") from None


def write_whole(data: bytes, path: Path) -> None:
    """Write beside the final name first, then rename: no reader ever sees half a file."""
    with temporary_file(path) as temporary:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def _numbered_lines(
    path: Path, lines: Iterable[str], constants: list[str], skipped: list[InputError] | None
) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = _parse(line, where, constants)
        except InputError as error:
            if skipped is None:
                raise
            skipped.append(error)
        else:
            yield where, row


def _list_items(path: Path, text: str, constants: list[str]) -> Iterator[tuple[str, Any]]:
    items = _parse(text, str(path), constants) if text.strip() else []
    if not isinstance(items, list):
        raise InputError(f"{path}: expected a JSON list of records, found a JSON {type(items).__name__}.")
    for number, item in enumerate(items, start=1):
        yield f"{path}, record {number}", item


def _parse(text: str, where: str, constants: list[str]) -> Any:
    """The value of `text`, which can be written again; names of numbers that JSON does not have go to `constants`."""
    try:
        # Of a list, `append` returns None, which stands for what is no number.
        value = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=constants.append, parse_float=_finite)
        if text.count("[") + text.count("{") > DEEPEST:
            _check_depth(value)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where}: broken JSON ({error.msg}, line {error.lineno} column {error.colno}): mend it."
        ) from None
    except UnicodeEncodeError as error:
        half = f"{error.object[error.start]!a}"
        raise InputError(f"{where}: holds half a character ({half}), which no text has: correct or drop it.") from None
    except RecursionError:
        raise InputError(f"{where}: nested more than {DEEPEST} deep: correct or drop it.") from None
    except ValueError as error:
        # The second sentence of Python's message about long integers is advice to programmers.
        raise InputError(f"{where}: {str(error).partition(';')[0]}: correct or drop it.") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} stands twice in an object")
    return row


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {text:.40} is too large")
    return number


def _check_depth(value: Any, left: int = DEEPEST) -> None:
    if left < 0:
        raise RecursionError
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(item, (dict, list)):
            _check_depth(item, left - 1)
