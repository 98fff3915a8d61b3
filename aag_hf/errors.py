"""The errors of this package that a user can cause."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class InputError(ValueError):
    """Something that the user gave is wrong. The message names it, and says what was expected and what to do.

    The command line prints it without a traceback.
    """


class DivergenceError(ArithmeticError):
    """Training met a number that is not finite. The message names the step, the term and the records.

    The command line prints it without a traceback and exits with 1, since the input may be right.
    """


@contextmanager
def loading(name: Any) -> Iterator[None]:
    """Turn any error of a library that loads something into one that names the thing loaded.

    Raises:
        InputError: It cannot be loaded: it is missing, damaged, or of another kind.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        kind = "" if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: "
        raise InputError(f"{name}: does not load: {kind}{error}") from error
