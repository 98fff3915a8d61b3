"""JSON files as rows, each with the place it came from; files that are whole or absent."""

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from aag_hf.errors import InputError
from aag_hf.locks import temporary_file

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz")


def file_stem(path: Path) -> str:
    """The file's name without ``.jsonl``, ``.json`` and ``.gz``."""
    return path.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".json")


def read_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Rows of a JSON Lines file, or of a JSON file that holds a list, with "file, line 3" for messages.

    Raises:
        InputError: The file is missing, of another kind, damaged or not JSON.
    """
    if not path.name.endswith(SUFFIXES):
        raise InputError(f"{path}: unknown kind of file: expected a name ending in {', '.join(SUFFIXES)}.")
    lines = path.name.removesuffix(".gz").endswith(".jsonl")
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8-sig") as file:
            if lines:
                yield from _numbered_lines(path, file)
            else:
                yield from _list_items(path, file.read())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise InputError(f"{path}: not a whole gzip file: make it again or decompress it yourself.") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8 text ({error.reason} at byte {error.start}): convert it to UTF-8."
        ) from None


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
    """One line of a JSON Lines file."""
    return (json.dumps(row, ensure_ascii=False) + "\n").encode()


def write_whole(data: bytes, path: Path) -> None:
    """Write beside the final name first, then rename: no reader ever sees half a file."""
    with temporary_file(path) as temporary:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def _numbered_lines(path: Path, lines: Iterable[str]) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield f"{path}, line {number}", _parse(line, f"{path}, line {number}")


def _list_items(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    items = _parse(text, str(path)) if text.strip() else []
    if not isinstance(items, list):
        raise InputError(f"{path}: expected a JSON list of records, found a JSON {type(items).__name__}.")
    for number, item in enumerate(items, start=1):
        yield f"{path}, record {number}", item


def _parse(text: str, where: str) -> Any:
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
        # Half a character that an escape such as \ud83d gives cannot be written again.
        json.dumps(value, ensure_ascii=False).encode()
        return value
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where}: broken JSON ({error.msg}, line {error.lineno} column {error.colno}): mend it."
        ) from None
    except UnicodeEncodeError as error:
        half = error.object[error.start].encode("unicode_escape").decode()
        raise InputError(f"{where}: half a character, {half}: write both halves, or drop it.") from None
    except RecursionError:
        raise InputError(f"{where}: nested too deeply: expected a flat object.") from None
    except ValueError as error:
        raise InputError(f"{where}: {error}: correct or drop this row.") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for i, (name, _) in enumerate(pairs) if name in [other for other, _ in pairs[:i]])
        raise ValueError(f"field {twice!r} stands twice")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
