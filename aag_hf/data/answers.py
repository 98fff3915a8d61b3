"""When two answers are the same, and when a text holds an answer."""

import re
import string
import unicodedata
from collections.abc import Sequence
from typing import Literal

import regex

from aag_hf.errors import InputError

Match = Literal["words", "regex"]

_SECONDS = 1
_FLAGS = regex.IGNORECASE | regex.MULTILINE
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_TOKEN = regex.compile(r"[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]")
# Letters, digits and signs of East Asian type, in one width: what Unicode calls their wide or narrow form.
_WIDTHS = {
    code: unicodedata.normalize("NFKC", chr(code))
    for code in (0x3000, *range(0xFF01, 0xFFEF))
    if unicodedata.decomposition(chr(code)).startswith(("<wide>", "<narrow>"))
}


def one_form(text: str) -> str:
    """`text` in the form in which it is compared: the same whether composed or not, in upper or lower case, full or
    half width."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text.translate(_WIDTHS)).lower())


def normalize_answer(text: str) -> str:
    """SQuAD's normalisation: one case, without ASCII punctuation and English articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", one_form(text).translate(_PUNCTUATION)).split())


def comparable(text: str) -> str:
    """`text` normalised. If nothing is left of it ("A", "!!!", "The The"), the text itself in one form."""
    return normalize_answer(text) or " ".join(one_form(text).split())


def tokenize(text: str) -> list[str]:
    """DPR's tokens in one form: runs of letters, digits and marks, or one other visible character."""
    return _TOKEN.findall(unicodedata.normalize("NFD", one_form(text)))


def has_answer(text: str, answers: Sequence[str], match: Match = "words") -> bool:
    """Whether `text` contains an answer.

    A blank answer has no tokens and is found in every text; records refuse blank answers.

    Args:
        text: The text that is searched.
        answers: The answers.
        match: ``"words"``: `text` has the tokens of an answer one after the other, as DPR judges passages. ``"regex"``:
            answers are regular expressions, as in CuratedTREC, and one matches anywhere, in upper or lower case.

    Raises:
        InputError: An answer is not a regular expression, or its search takes longer than a second.
    """
    if match == "regex":
        return any(_is_found(answer, text) for answer in answers)
    # No token holds a space.
    tokens = f" {' '.join(tokenize(text))} "
    wanted = (tokenize(answer) for answer in answers)
    return any(not answer or f" {' '.join(answer)} " in tokens for answer in wanted)


def begins_with_pattern(text: str, patterns: Sequence[str]) -> bool:
    """Whether a regular expression matches from the beginning of `text`, as DrQA judges answers to CuratedTREC.

    Raises:
        InputError: As `has_answer`.
    """
    return any(_is_found(pattern, text.strip(), at_start=True) for pattern in patterns)


def check_patterns(patterns: Sequence[str], where: str) -> None:
    """Refuse answers that are not regular expressions.

    Args:
        patterns: The answers.
        where: Their place, which begins the message.

    Raises:
        InputError: Names the place and the answer.
    """
    for pattern in patterns:
        try:
            regex.compile(pattern, _FLAGS)
        except regex.error as error:
            raise InputError(f"{where}: answer {pattern!r}: not a regular expression ({error}): correct it.") from None


def _is_found(pattern: str, text: str, at_start: bool = False) -> bool:
    look = regex.match if at_start else regex.search
    try:
        return look(pattern, unicodedata.normalize("NFC", text), _FLAGS, timeout=_SECONDS) is not None
    except regex.error as error:
        raise InputError(f"answer {pattern!r}: not a regular expression ({error}): correct it.") from None
    except TimeoutError:
        raise InputError(f"answer {pattern!r}: takes more than {_SECONDS} s to look for: make it simpler.") from None
