"""Documents as users give them: a text, or the path of a text file."""

import os
import re
from pathlib import Path

from aag_hf.data.words import words
from aag_hf.errors import InputError

# Words of a passage, as in the passages of Wikipedia that retrieval is measured on; function words are not counted.
PASSAGE_WORDS = 80
# Each passage has a memory of its own, of about a megabyte.
MOST_PASSAGES = 256
# The length of the name of a text that has none.
_BEGINNING = 40
# A paragraph of fewer words belongs to the next one.
_HEADING_WORDS = 5
_PARAGRAPHS = re.compile(r"\n\s*\n")
_SENTENCES = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")


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
    line = " ".join(document.split())
    if " " not in line and path.suffix and line:
        raise InputError(f"{path}: no such file, and one word is no document.")
    return line[:_BEGINNING], document


def in_passages(text: str, most: int = PASSAGE_WORDS) -> list[str]:
    """A long text in passages, which are its paragraphs, or parts of these in whole sentences.

    A memory of a long text blends what its sentences say; that of a passage blends less.

    Args:
        text: The text. If it has no more than `most` words, it is the only passage.
        most: The most words of a passage. A longer sentence is a passage of its own.

    Returns:
        The passages in their order, at most 256. Joined, they are the text but for white space.
    """
    if len(words(text)) <= most:
        return [text]
    passages: list[str] = []
    heading = ""
    for paragraph in filter(None, map(str.strip, _PARAGRAPHS.split(text))):
        if len(words(paragraph)) <= _HEADING_WORDS:
            heading = f"{heading} {paragraph}".strip()
            continue
        passages += _packed(_SENTENCES.split(f"{heading} {paragraph}".strip()), most)
        heading = ""
    passages += [heading] if heading else []
    return passages if len(passages) <= MOST_PASSAGES else _packed(passages, -(-len(words(text)) // MOST_PASSAGES))


def named_passages(name: str, text: str) -> list[tuple[str, str]]:
    """The passages of a text, each with a name of its own: ``"name, passage 2"``. A text in one keeps its name."""
    passages = in_passages(text)
    if len(passages) == 1:
        return [(name, text)]
    return [(f"{name}, passage {number}", passage) for number, passage in enumerate(passages, start=1)]


def _packed(parts: list[str], most: int) -> list[str]:
    """Neighbouring parts joined to passages of like length, of about `most` words if there are more."""
    lengths = [len(words(part)) for part in parts]
    enough = sum(lengths) / max(1, -(-sum(lengths) // most))
    passages: list[list[str]] = [[]]
    filled = 0
    for part, length in zip(parts, lengths):
        if passages[-1] and filled + length / 2 > enough * len(passages):
            passages.append([])
        passages[-1].append(part)
        filled += length
    return [" ".join(passage) for passage in passages]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        # It is too long for the name of a file, or has characters that no such name has.
        return False
