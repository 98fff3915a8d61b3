"""The parser of a command's options, and the checks that all options share."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any, NoReturn

from trl import TrlParser

from aag_hf.cli.help import format_options
from aag_hf.cli.ranges import check_number
from aag_hf.errors import InputError


class _RaisesErrors:
    def error(self, message: str) -> NoReturn:
        """Raise `message`, which argparse would print below a usage of many lines."""
        raise InputError(f"{message.removeprefix('argument ')}.")


class StrictParser(_RaisesErrors, ArgumentParser):
    """A parser whose errors are raised."""


class OptionParser(_RaisesErrors, TrlParser):
    """The options of a command, from dataclasses."""

    def format_help(self) -> str:
        """The options of this package, and the most used ones of others."""
        return format_options(self, self.dataclass_types)


def check_value(name: str, value: Any) -> None:
    """Refuse numbers out of range, and characters that no path or text has.

    Raises:
        InputError: Names the option.
    """
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str) and "\0" in item:
            raise InputError(f"{name} is {item!r}: holds a NUL character, which no name or text has.")
        if isinstance(item, str) and not item.isascii():
            try:
                item.encode()
            except UnicodeEncodeError:
                # Python reads such bytes as halves of characters, which no file of records or settings can hold.
                raise InputError(f"{name} is {item!a}: not UTF-8: expected text, or a name, in UTF-8.") from None
        if name == "output" and item and not Path(item).name:
            raise InputError(f"output is {item!r}: expected a name to write to, found a folder that has none.")
        if isinstance(item, (int, float)) and not isinstance(item, bool):
            check_number(name, item)
