"""Compares two readers on the same questions: their difference, its error, and the questions on which they differ."""

from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from aag_hf.data.files import read_rows
from aag_hf.errors import InputError
from aag_hf.evaluation.scores import METRICS, clustered_stderr, finite

Predictions = list[dict[str, Any]]
# The name of such a file in the output folder of `aag evaluate`.
PREDICTIONS = "predictions.jsonl"


def read_predictions(path: Path) -> dict[str, Predictions]:
    """The rows of a predictions.jsonl that ``aag evaluate`` wrote, by reader.

    Raises:
        InputError: The file is not one of these, or has two rows of one reader about one question.
    """
    by_reader: dict[str, Predictions] = {}
    seen: set[tuple[str, str]] = set()
    for where, row in read_rows(path):
        if not _is_prediction(row):
            raise InputError(f"{where}: expected a row of the predictions.jsonl of `aag evaluate`: evaluate again.")
        if (row["reader"], row["id"]) in seen:
            raise InputError(f"{where}: a row before it is about {row['id']!r} by {row['reader']!r} too: keep one.")
        seen.add((row["reader"], row["id"]))
        by_reader.setdefault(row["reader"], []).append(row)
    if not by_reader:
        raise InputError(f"{path}: holds no predictions.")
    return by_reader


def _is_prediction(row: Any) -> bool:
    texts = ("reader", "id", "question", "prediction")
    return (
        isinstance(row, dict)
        and all(isinstance(row.get(name), str) for name in texts)
        and isinstance(row.get("answers"), list)
        and all(isinstance(answer, str) for answer in row["answers"])
        and all(type(row.get(metric)) in (int, float) and 0 <= row[metric] <= 1 for metric in METRICS)
        and type(row.get("entity", "")) in (str, int, float)
    )


def pair_predictions(first: Predictions, second: Predictions) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Both readers' rows about each question, in the order of the first.

    Raises:
        InputError: They were not asked the same questions, or one has two rows about a question.
    """
    one, two = ({row["id"]: row for row in rows} for rows in (first, second))
    for rows, by_id in ((first, one), (second, two)):
        if len(rows) != len(by_id):
            raise InputError(f"a reader has {len(rows)} rows about {len(by_id)} questions: keep one row for each.")
    alone = sorted(one.keys() ^ two.keys())
    asked = ("question", "answers")
    differing = sorted(
        name for name in one.keys() & two.keys() if any(one[name][field] != two[name][field] for field in asked)
    )
    if alone or differing:
        told = f"only one answered {alone[0]}" if alone else f"{differing[0]} is another question or has other answers"
        raise InputError(
            f"the readers were not asked the same questions ({len(alone) + len(differing)} differ: {told}): evaluate "
            "both on the same file, with equal max_samples and seed."
        )
    return [(row, two[row["id"]]) for row in first]


def compare_predictions(first: Predictions, second: Predictions) -> dict[str, Any]:
    """Paired differences, in percent, and McNemar's test.

    Args:
        first: Rows of one reader, as `score_predictions` gives them.
        second: Rows of another, about the same questions.

    Returns:
        `count`; each metric as a dictionary of `first`, `second`, `difference` (second minus first) and its `stderr`,
        which is clustered by entity where rows have one and ``None`` for a single cluster; `only_first` and
        `only_second`, how many questions one alone matched exactly, and `mcnemar_p`, the probability of a split at
        least as uneven if both readers were equally good. McNemar's test takes questions as independent. If several are
        about one entity, trust the standard error.

    Raises:
        InputError: They were not asked the same questions.
    """
    pairs = pair_predictions(first, second)
    clusters = [row.get("entity", row["id"]) for row, _ in pairs]
    result: dict[str, Any] = {"count": len(pairs)}
    for metric in METRICS:
        differences = [100.0 * (two[metric] - one[metric]) for one, two in pairs]
        means = [100.0 * sum(row[metric] for row in rows) / len(pairs) for rows in zip(*pairs)]
        result[metric] = {
            "first": means[0],
            "second": means[1],
            "difference": sum(differences) / len(pairs),
            "stderr": finite(clustered_stderr(differences, clusters)),
        }
    only_first, only_second = map(len, _matched_by_one(pairs))
    return result | {
        "only_first": only_first,
        "only_second": only_second,
        "mcnemar_p": exact_mcnemar(only_first, only_second),
    }


def exact_mcnemar(only_first: int, only_second: int) -> float:
    """The exact form of McNemar's test: the two-sided probability that fair coins fall at least as unevenly.

    Args:
        only_first: Questions that the first reader alone has right.
        only_second: Questions that the second reader alone has right.
    """
    total = only_first + only_second
    ways, tail = 1, 0
    for number in range(min(only_first, only_second) + 1):
        tail += ways
        ways = ways * (total - number) // (number + 1)
    return min(1.0, 2 * tail / 2**total)


def differing_questions(
    first: Predictions, second: Predictions, most: int = 10
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Both rows of each question that one reader alone matched exactly, in turn for the first and the second reader."""
    lost, won = _matched_by_one(pair_predictions(first, second))
    return [pair for pair in chain(*zip_longest(lost, won)) if pair is not None][:most]


def _matched_by_one(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> tuple[list[Any], list[Any]]:
    lost = [pair for pair in pairs if pair[0]["exact_match"] > pair[1]["exact_match"]]
    won = [pair for pair in pairs if pair[0]["exact_match"] < pair[1]["exact_match"]]
    return lost, won
