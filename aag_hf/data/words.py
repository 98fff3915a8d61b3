"""The words that retrieval searches."""

from itertools import pairwise

import regex

from aag_hf.data.answers import one_form

# Scripts that put no spaces between words.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
_RUN = regex.compile(rf"(?V1)(?P<unspaced>[{_UNSPACED}]+)|[\w--[{_UNSPACED}]]+")
# fmt: off
_FUNCTION_WORDS = frozenset((
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no", "not", "of",
    "on", "or", "such", "that", "the", "their", "then", "there", "these", "they", "this", "to", "was", "will", "with",
))
# fmt: on


def words(text: str) -> list[str]:
    """Words in one form (see [`~aag_hf.data.answers.one_form`]), without English function words.

    Text of a script without spaces gives pairs of neighbouring characters, as in search engines.
    """
    found: list[str] = []
    for run in _RUN.finditer(one_form(text)):
        word = run.group()
        if run["unspaced"] and len(word) > 1:
            found += map("".join, pairwise(word))
        elif word not in _FUNCTION_WORDS:
            found.append(word)
    return found
