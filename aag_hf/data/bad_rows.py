"""Rows that cannot be used, and how many of them a reader may leave out."""

import logging

from aag_hf.errors import InputError

logger = logging.getLogger(__name__)


class BadRows:
    """Counts the rows that are left out, and refuses those beyond the limit.

    Args:
        most: How many may be left out; 0 refuses the first.

    Attributes:
        count: How many were left out.
        first: What is wrong with the first of them.

    Raises:
        InputError: `most` is negative.
    """

    def __init__(self, most: int = 0):
        if most < 0:
            raise InputError(f"skip_bad is {most}: expected how many bad rows may be left out, 0 or more.")
        self.most = most
        self.count = 0
        self.first: InputError | None = None

    def leave_out(self, error: InputError) -> None:
        """Leave out a row for what is wrong with it.

        Raises:
            InputError: The limit is reached already.
        """
        if self.count >= self.most:
            raise InputError(f"{error} {self.count} bad rows before it were left out.") if self.count else error
        self.count += 1
        self.first = self.first or error

    def warn(self, source: str) -> None:
        """Say how many rows of `source` were left out, if any were."""
        if self.count:
            logger.warning("%s: %d bad rows left out, the first: %s", source, self.count, self.first)
