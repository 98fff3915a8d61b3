"""What a launcher of several processes tells them in the environment."""

import os

from aag_hf.errors import InputError

_NUMBERS = ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "LOCAL_RANK")


def check_launcher() -> None:
    """Refuse variables of a launcher that are not numbers; the libraries that read them would not name them.

    Raises:
        InputError: Names the variable.
    """
    for name in _NUMBERS:
        value = os.environ.get(name, "1")
        if not value.lstrip("-").isdecimal():
            raise InputError(f"{name} is {value!r} in the environment: expected a number: unset it.")


def started_processes() -> int:
    """How many processes a launcher started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", 1))
