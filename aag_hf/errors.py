"""The errors of this package that a user can cause."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class InputError(ValueError):
    """Something the user gave is wrong; the message names it, says what was expected and what to do.

    The command line prints it without a traceback.
    """


class DivergenceError(ArithmeticError):
    """Training met a number that is not finite; the message names the step, the term and the records.

    The command line prints it without a traceback and exits with 1: nothing that was given need be wrong.
    """


@contextmanager
def loading(name: Any) -> Iterator[None]:
    """Name what is loaded in the error of a library that stumbles over it, whatever the library raises.

    Raises:
        InputError: It does not load: it is missing, damaged, or of another kind.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        kind = "" if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: "
        raise InputError(f"{name}: does not load: {kind}{error}") from error
