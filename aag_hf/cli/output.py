"""What commands print. Much of it is data: paths, names, answers."""

import json
from typing import Any

from rich.console import Console

JSON_HELP = "Print the result as JSON, and nothing else, to the standard output."


def plain_console(stderr: bool = False) -> Console:
    """A console that prints text as it is, whatever in it looks like markup, and breaks no line of it.

    Args:
        stderr: Print to the standard error, which what goes on and how long it took belong to.
    """
    return Console(markup=False, emoji=False, highlight=False, soft_wrap=True, stderr=stderr)


def print_json(value: Any) -> None:
    """Print a result for another program, on one line."""
    print(json.dumps(value, ensure_ascii=False, allow_nan=False))
