"""When two answers are the same, and when a text holds an answer."""

import re
import string
import unicodedata
from collections.abc import Sequence

import regex

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_TOKEN = regex.compile(r"[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]")


def normalize_answer(text: str) -> str:
    """SQuAD's normalisation: lower case, without ASCII punctuation and English articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def tokenize(text: str) -> list[str]:
    """DPR's tokens: runs of letters, digits and marks, or one other visible character; lower case."""
    return [token.lower() for token in _TOKEN.findall(unicodedata.normalize("NFD", text))]


def has_answer(text: str, answers: Sequence[str]) -> bool:
    """Whether the tokens of an answer stand in `text` one after the other, as DPR judges passages.

    A blank answer has no tokens and is found in every text; records refuse blank answers.
    """
    tokens = tokenize(text)
    for answer in answers:
        wanted = tokenize(answer)
        if any(tokens[i : i + len(wanted)] == wanted for i in range(len(tokens) - len(wanted) + 1)):
            return True
    return False
