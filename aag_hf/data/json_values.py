"""Reads JSON values that can be written again, one at a time. A list is never in memory as a whole."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, TextIO

from aag_hf.data.bad_rows import BadRows
from aag_hf.errors import InputError

# How deep lists and objects may be nested; Python's own limit differs from place to place.
DEEPEST = 100
# Characters per read. A longer value is read in steps that double.
STEP = 2**20
# If a value continues after the buffer, decoding stops at most this far from its end, at a literal or an escape.
_NEAR = 16


def parse(text: str, where: str, constants: list[str]) -> Any:
    """The value of `text`.

    Args:
        text: One JSON value.
        where: Its place, for messages.
        constants: Collects the names of numbers that JSON does not have. They are read as null.

    Raises:
        InputError: The text is not JSON, or cannot be written again: a key stands twice, a character is cut in half, a
            number is too large, or there are more than `DEEPEST` levels.
    """
    try:
        value = json.loads(text, **_hooks(constants))
        _check(value, text)
        return value
    except json.JSONDecodeError as error:
        _refuse(where, error, error.lineno, error.colno)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: {_said(error)}: correct or drop it.") from None


def list_items(path: Path, file: TextIO, constants: list[str], bad: BadRows) -> Iterator[tuple[str, Any]]:
    """The items of a list, or of the list that an object has under the key ``data`` in upper or lower case.

    Args:
        path: The file's name.
        file: The file.
        constants: As in `parse`.
        bad: Counts items that cannot be used. After broken JSON nothing more can be read.

    Raises:
        InputError: There is no such list, or an item is bad.
    """
    buffer = _Buffer(path, file, constants)
    try:
        start = buffer.next()
        if start == "":
            return
        keys: set[str] = set()
        if start == "{":
            _find_list(buffer, keys)
        elif start != "[":
            _refuse_kind(path, buffer.value())
        buffer.skip()
        number = 0
        while buffer.next() != "]":
            if number:
                buffer.expect(",")
            number += 1
            try:
                item = buffer.value()
            except (ValueError, RecursionError) as error:
                if isinstance(error, (InputError, json.JSONDecodeError)):
                    raise
                bad.leave_out(InputError(f"{path}, record {number}: {_said(error)}: correct or drop it."))
                buffer.leave_out_value()
            else:
                yield f"{path}, record {number}", item
        buffer.skip()
        if start == "{":
            _leave_object(buffer, keys)
        if buffer.next():
            raise buffer.error("Extra data")
    except InputError:
        raise
    except json.JSONDecodeError as error:
        try:
            _refuse(str(path), error, *buffer.position(error))
        except InputError as refusal:
            bad.leave_out(refusal)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: {_said(error)}: correct or drop it.") from None


class _Buffer:
    """The text of a file, from the current place on."""

    def __init__(self, path: Path, file: TextIO, constants: list[str]):
        self.path = path
        self._file = file
        self._decoder = json.JSONDecoder(**_hooks(constants))
        self._text = ""
        self._at = 0
        self._lines = self._columns = 0

    def next(self) -> str:
        """The next character that is not a space; empty at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in " \t\n\r":
                    return self._text[self._at]
                self._at += 1
            if not self._read_on():
                return ""

    def skip(self) -> None:
        """Move behind the character that `next` gave."""
        self._at += 1

    def expect(self, character: str) -> None:
        """Move behind `character`, which must come next."""
        if self.next() != character:
            raise self.error(f"Expecting {character!r} delimiter")
        self.skip()

    def error(self, message: str) -> json.JSONDecodeError:
        """The error at the next character."""
        return json.JSONDecodeError(message, self._text, self._at)

    def value(self) -> Any:
        """The next value."""
        value, end = self._decode(self._decoder)
        _check(value, self._text[self._at : end])
        self._at = end
        return value

    def leave_out_value(self) -> None:
        """Move behind a JSON value, even if it cannot be used."""
        try:
            _, self._at = self._decode(json.JSONDecoder(parse_int=str))
        except RecursionError:
            raise self.error("Nested too deep to be left out") from None

    def position(self, error: json.JSONDecodeError) -> tuple[int, int]:
        """Line and column of an error in the file."""
        return self._lines + error.lineno, error.colno + (self._columns if error.lineno == 1 else 0)

    def _decode(self, decoder: json.JSONDecoder) -> tuple[Any, int]:
        self.next()
        while True:
            try:
                value, end = decoder.raw_decode(self._text, self._at)
                # A number may continue behind the buffer.
                is_cut = self._text[self._at] in "-0123456789" and end > len(self._text) - _NEAR
                if not (is_cut and self._read_on()):
                    return value, end
            except json.JSONDecodeError as error:
                goes_on = error.pos > len(self._text) - _NEAR or error.msg.startswith("Unterminated string")
                if not (goes_on and self._read_on()):
                    raise

    def _read_on(self) -> bool:
        """Read more and drop the used part. Returns whether there was more."""
        used = self._text[: self._at]
        more = self._file.read(max(STEP, len(self._text) - self._at))
        if not more:
            return False
        if used:
            lines = used.count("\n")
            self._lines += lines
            self._columns = len(used) - used.rfind("\n") - 1 + (0 if lines else self._columns)
        self._text, self._at = self._text[self._at :] + more, 0
        return True


def _find_list(buffer: _Buffer, keys: set[str]) -> None:
    """Move to the list inside an object, behind the keys before it, which `keys` collects."""
    buffer.skip()
    while buffer.next() == '"':
        key = _new_key(buffer, keys)
        if buffer.next() == "[" and key.lower() == "data":
            return
        buffer.value()
        if buffer.next() != ",":
            break
        buffer.skip()
    if buffer.next() != "}":
        buffer.expect("}")
    _refuse_kind(buffer.path, {})


def _leave_object(buffer: _Buffer, keys: set[str]) -> None:
    """Move behind the end of the object around the list."""
    while buffer.next() == ",":
        buffer.skip()
        if buffer.next() != '"':
            raise buffer.error("Expecting property name enclosed in double quotes")
        key = _new_key(buffer, keys)
        if buffer.next() == "[" and key.lower() == "data":
            raise InputError(f"{buffer.path}: has a second list of records, {key!r}: keep one.")
        buffer.value()
    buffer.expect("}")


def _new_key(buffer: _Buffer, keys: set[str]) -> str:
    """The next key of an object, and move to its value."""
    key = buffer.value()
    if key in keys:
        raise InputError(f"{buffer.path}: key {key!r} stands twice in an object: keep one.")
    keys.add(key)
    buffer.expect(":")
    return key


def _refuse_kind(path: Path, found: Any) -> NoReturn:
    raise InputError(f"{path}: expected a JSON list of records, found a JSON {type(found).__name__}.")


def _refuse(where: str, error: json.JSONDecodeError, line: int, column: int) -> NoReturn:
    raise InputError(f"{where}: broken JSON ({error.msg}, line {line} column {column}): mend it.") from None


def _said(error: ValueError | RecursionError) -> str:
    if isinstance(error, UnicodeEncodeError):
        return f"holds half a character ({error.object[error.start]!a}), which no text has"
    if isinstance(error, RecursionError):
        return f"nested more than {DEEPEST} deep"
    # The second sentence of Python's message about long integers is advice to programmers.
    return str(error).partition(";")[0]


def _hooks(constants: list[str]) -> dict[str, Any]:
    # `append` returns None, which replaces the constant.
    return {"object_pairs_hook": _unique_keys, "parse_constant": constants.append, "parse_float": _finite}


def _check(value: Any, text: str) -> None:
    if text.count("[") + text.count("{") > DEEPEST:
        _check_depth(value)
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()


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
