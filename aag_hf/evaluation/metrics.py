"""Scores of one prediction against all acceptable answers."""

from collections import Counter
from collections.abc import Sequence

from aag_hf.data.answers import comparable, has_answer, normalize_answer
from aag_hf.errors import InputError

__all__ = ["exact_match", "f1_score", "best_subspan_em", "has_answer"]


def exact_match(prediction: str, answers: Sequence[str]) -> bool:
    """Whether the prediction equals an answer after normalisation.

    A text that normalises to nothing ("A", "!!!") equals only itself. An empty prediction equals no answer.

    Raises:
        InputError: `answers` is empty or a single string.
    """
    _check(answers)
    said = comparable(prediction)
    return bool(said) and said in map(comparable, answers)


def f1_score(prediction: str, answers: Sequence[str]) -> float:
    """The best F1 between the words of the prediction and of an answer, after normalisation (SQuAD v1.1).

    It is 1 wherever the exact match is true.

    Raises:
        InputError: `answers` is empty or a single string.
    """
    _check(answers)
    said = comparable(prediction).split()
    return max(_f1(said, comparable(answer).split()) for answer in answers)


def best_subspan_em(prediction: str, answers: Sequence[str]) -> bool:
    """Whether the prediction contains an answer, after normalisation.

    An answer that normalises to nothing ("A", "!!!") is looked for before normalisation, as whole tokens.

    Raises:
        InputError: `answers` is empty or a single string.
    """
    _check(answers)
    said = normalize_answer(prediction)
    normalized = ((answer, normalize_answer(answer)) for answer in answers)
    return any(short in said if short else _stands_in(answer, prediction) for answer, short in normalized)


def _stands_in(answer: str, text: str) -> bool:
    return bool(answer.strip()) and has_answer(text, [answer])


def _f1(predicted: list[str], expected: list[str]) -> float:
    shared = sum((Counter(predicted) & Counter(expected)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(expected)
    return 2 * precision * recall / (precision + recall)


def _check(answers: Sequence[str]) -> None:
    if isinstance(answers, str) or not answers:
        raise InputError(f"answers is {answers!r}: expected a list of one or more acceptable answers.")
