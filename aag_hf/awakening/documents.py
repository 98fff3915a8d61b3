"""Documents as people give them: a text, or a file of it."""

import os
from pathlib import Path

from aag_hf.errors import InputError

# Of the name that a text gets which has none.
_BEGINNING = 40


def text_of(document: str | os.PathLike[str]) -> tuple[str, str]:
    """A name and the text of a document.

    Args:
        document: The path of a text file, or the text itself: a string that is no file's name.

    Raises:
        InputError: The file is no text, or there is none where only a file can be meant.
    """
    path = Path(document)
    if not isinstance(document, str) or _is_file(path):
        try:
            return path.name, path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise InputError(f"{path}: is not text in UTF-8: save it so.") from None
        except FileNotFoundError:
            raise InputError(f"{path}: no such file.") from None
    words = " ".join(document.split())
    if " " not in words and path.suffix and words:
        raise InputError(f"{path}: no such file, and one word is no document.")
    return words[:_BEGINNING], document


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        # Too long for a file's name, or with characters that no file's name has.
        return False
