"""Writes files of rows, which are complete or absent: JSON Lines, or Parquet by their name."""

import gzip
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from aag_hf.errors import InputError
from aag_hf.locks import temporary_file


def write_rows(rows: Iterable[Any], path: str | os.PathLike[str], before: Callable[[], None] = lambda: None) -> None:
    """Write one JSON object per line, or Parquet. The file appears only when it is complete.

    Args:
        rows: The objects; each is written before the next is asked for.
        path: The file, ``.jsonl``, ``.jsonl.gz`` or ``.parquet``.
        before: Called after the last row is written, before the file appears.

    Raises:
        InputError: The name has another ending.
    """
    path = Path(path)
    if path.suffix == ".parquet":
        from aag_hf.data.parquet import write_parquet

        write_parquet(rows, path, before)
        return
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise InputError(f"{path}: cannot write this kind of file: end the name in .jsonl, .jsonl.gz or .parquet.")
    with written_whole(path) as file:
        if path.suffix != ".gz":
            file.writelines(map(encode_row, rows))
        else:
            # Without a name and a time stamp in the header, equal rows make equal files.
            with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
                packed.writelines(map(encode_row, rows))
        file.flush()
        before()


def encode_row(row: Any) -> bytes:
    """One line of a JSON Lines file.

    Raises:
        InputError: It holds a value that JSON or UTF-8 does not have: NaN, half a character, or an object of another
            type.
    """
    try:
        return (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError, RecursionError) as error:
        name = f"row {row['id']!r}" if isinstance(row, dict) and "id" in row else "a row"
        raise InputError(f"{name} cannot be written as JSON: {error}: correct or drop it.") from None


def write_whole(data: bytes, path: Path) -> None:
    """Write `data` to `path`, which appears only when it is complete."""
    with written_whole(path) as file:
        file.write(data)


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write. It becomes `path` at the end, so nobody ever sees half of it."""
    with temporary_file(path) as temporary:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
