"""The parser of a command's options, and the checks that all options share."""

from argparse import ArgumentParser
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, NoReturn

from trl import TrlParser

from aag_hf.cli.ranges import check_number
from aag_hf.errors import InputError

COMMANDS = {
    "data": "convert a data set into records",
    "convert-fid": "turn an original Fusion-in-Decoder checkpoint into a model directory",
    "index": "index a pool of passages, for any number of searches",
    "retrieve": "find passages for each question with BM25",
    "compress": "compress each question's passages with LongLLMLingua",
    "train-generator": "stage 1: train the context generator",
    "generate": "write a context for each question from memory",
    "train": "stage 2: train a reader, with or without a teacher",
    "evaluate": "measure a reader and its controls",
    "compare": "tell whether one reader is better than another, question by question",
    "memorize": "read documents into memories, to ask a model about them",
    "ask": "ask a saved model a question",
    "export": "turn the adapter of a question or a document into a plain PEFT LoRA",
    "publish": "write the card of a saved model, or of data, and upload it",
    "quickstart": "run every stage at a small size",
}


class _RaisesErrors:
    def error(self, message: str) -> NoReturn:
        """Raise `message`, which argparse would print below a usage of many lines."""
        raise InputError(f"{message.removeprefix('argument ')}.")


class StrictParser(_RaisesErrors, ArgumentParser):
    """A parser whose errors are raised."""


class OptionParser(_RaisesErrors, TrlParser):
    """The options of a command, from dataclasses."""


def check_value(name: str, value: Any) -> None:
    """Refuse numbers out of range, and characters that no path or text has.

    Raises:
        InputError: Names the option.
    """
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str) and "\0" in item:
            raise InputError(f"{name} is {item!r}: holds a NUL character, which no name or text has.")
        if isinstance(item, (int, float)) and not isinstance(item, bool):
            check_number(name, item)


def closest(name: str, known: Iterable[str]) -> str:
    """The known name that is closest to an unknown one, worded for a message; empty if none is close."""
    alike = get_close_matches(name, list(known), n=1)
    return f" (did you mean {alike[0]}?)" if alike else ""
