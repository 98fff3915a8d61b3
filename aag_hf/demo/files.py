"""Uploaded files, which lie in folders that their owners never saw."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aag_hf.awakening.documents import text_of
from aag_hf.errors import InputError


@contextmanager
def named_alone(path: Path) -> Iterator[None]:
    """Let messages about a file name it without its folder.

    Raises:
        InputError: Instead of one that names the whole path.
    """
    try:
        yield
    except InputError as error:
        raise InputError(str(error).replace(str(path), path.name)) from None


def uploaded_text(path: Path) -> tuple[str, str]:
    """The name and the text of an uploaded file.

    Raises:
        InputError: It is not text.
    """
    with named_alone(path):
        return text_of(path)
