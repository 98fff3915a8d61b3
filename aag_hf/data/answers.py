"""When two answers are the same, and when a text holds an answer."""

import re
import string
import unicodedata
from collections.abc import Sequence

import regex

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
    """`text` in the form in which it is compared, without differences of composition, case and width."""
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


def has_answer(text: str, answers: Sequence[str]) -> bool:
    """Whether `text` contains the tokens of an answer one after the other, as DPR judges passages.

    A blank answer has no tokens and is found in every text; records refuse blank answers.
    """
    tokens = tokenize(text)
    for answer in answers:
        wanted = tokenize(answer)
        if any(tokens[i : i + len(wanted)] == wanted for i in range(len(tokens) - len(wanted) + 1)):
            return True
    return False
