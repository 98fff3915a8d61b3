"""Files of rows: JSON, tables and Parquet, each row with the place it came from."""

import codecs
import gzip
import logging
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from aag_hf.data.bad_rows import BadRows
from aag_hf.data.json_values import list_items, parse
from aag_hf.data.parquet import parquet_rows
from aag_hf.data.tables import TABLES, table_rows
from aag_hf.errors import InputError

logger = logging.getLogger(__name__)

_PARQUET = ".parquet"
_TEXTS = (".jsonl", ".json", *TABLES)
SUFFIXES = (*_TEXTS, *(f"{ending}.gz" for ending in _TEXTS), _PARQUET)


def file_stem(path: Path) -> str:
    """The file's name without the endings that tell its kind."""
    name = path.name.removesuffix(".gz")
    ending = next((ending for ending in (*_TEXTS, _PARQUET) if name.endswith(ending)), "")
    return name.removesuffix(ending).removesuffix(".qas")


def read_rows(path: Path, bad: BadRows | None = None) -> Iterator[tuple[str, Any]]:
    """Rows of a file, one after the other, with "file, line 3" for messages.

    Reads JSON Lines, JSON lists, tables with tabs or commas, each also in gzip, and Parquet. Some programs write NaN or
    infinity for a missing number, which JSON does not have. They are read as null, and a warning says how many there
    were.

    Args:
        path: The file.
        bad: Counts rows that cannot be used. Without it they are refused.

    Raises:
        InputError: The file is missing, of another kind or damaged, or a row cannot be used.
    """
    if not path.name.endswith(SUFFIXES):
        raise InputError(f"{path}: unknown kind of file: expected a name ending in {', '.join(SUFFIXES)}.")
    bad = bad or BadRows()
    if path.name.endswith(_PARQUET):
        yield from parquet_rows(path)
        return
    name = path.name.removesuffix(".gz")
    constants: list[str] = []
    with _opened(path) as file:
        if name.endswith(".jsonl"):
            yield from _numbered_lines(path, file, constants, bad)
        elif name.endswith(".json"):
            yield from list_items(path, file, constants, bad)
        else:
            yield from table_rows(path, file, bad)
    if constants:
        logger.warning(
            "%s: %d numbers are NaN or infinite, which JSON does not have: read as null.", path, len(constants)
        )


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """The file as text. A missing or damaged file is refused."""
    # Programs on Windows write a byte order mark, which is not part of the text.
    how: dict[str, Any] = {"encoding": "utf-8-sig", "newline": "" if file_is_table(path) else None}
    try:
        with gzip.open(path, "rt", **how) if path.suffix == ".gz" else path.open(**how) as file:
            yield file
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise InputError(f"{path}: not a whole gzip file: make it again or decompress it yourself.") from None
    except UnicodeDecodeError as error:
        utf16 = ", perhaps UTF-16" if error.object[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else ""
        raise InputError(
            f"{path}: not UTF-8 text{utf16} ({error.reason} at byte {error.start}): convert it to UTF-8."
        ) from None


def file_is_table(path: Path) -> bool:
    """Whether it is a table with tabs or commas, by its name."""
    return path.name.removesuffix(".gz").endswith(TABLES)


def _numbered_lines(path: Path, lines: TextIO, constants: list[str], bad: BadRows) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = parse(line, where, constants)
        except InputError as error:
            bad.leave_out(error)
        else:
            yield where, row
