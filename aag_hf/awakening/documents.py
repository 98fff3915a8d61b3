"""Documents as users give them: a text, or the path of a text file."""

import os
from pathlib import Path

from aag_hf.errors import InputError

# The length of the name of a text that has none.
_BEGINNING = 40


def text_of(document: str | os.PathLike[str]) -> tuple[str, str]:
    """The name and the text of a document.

    Args:
        document: The path of a text file, or the text itself. A string that names no file is a text.

    Raises:
        InputError: The file is not text, or the string can only be a path and there is no such file.
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
        # It is too long for the name of a file, or has characters that no such name has.
        return False
