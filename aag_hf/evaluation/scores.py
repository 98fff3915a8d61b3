"""From predictions to means with standard errors."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from aag_hf.data.answers import Match, begins_with_pattern, check_patterns, has_answer
from aag_hf.errors import InputError
from aag_hf.evaluation.confidence import accuracy_at, calibration_error
from aag_hf.evaluation.metrics import best_subspan_em, exact_match, f1_score

METRICS = ("exact_match", "f1", "best_subspan_em")
GROUPS = ("relation", "entity", "dataset")


def check_groups(records: Sequence[dict[str, Any]], source: str = "") -> None:
    """Refuse records by which results cannot be grouped.

    Args:
        records: The records.
        source: Where they come from, for messages.

    Raises:
        InputError: A relation, entity or dataset is neither text nor a number, or its type differs from that of the
            others.
    """
    where = f"{source}, record" if source else "record"
    for field in GROUPS:
        first: dict[str, Any] | None = None
        for record in records:
            if field not in record:
                continue
            value = record[field]
            if isinstance(value, bool) or not isinstance(value, (str, int, float)):
                raise InputError(
                    f"{where} {record['id']}: field {field!r}: expected a string or a number to group results by, "
                    f"found {value!r:.60}: correct or drop it."
                )
            first = first or record
            if isinstance(value, str) != isinstance(first[field], str):
                raise InputError(
                    f"{where} {record['id']}: field {field!r}: found {value!r:.60}, and {first[field]!r:.60} in record "
                    f"{first['id']}: expected strings in all records, or numbers in all."
                )


def check_scorable(records: Sequence[dict[str, Any]], match: Match, source: str = "") -> None:
    """Refuse records on which no reader can be scored.

    Args:
        records: The records.
        match: How answers are compared.
        source: Where they come from, for messages.

    Raises:
        InputError: As `check_groups`, or a record has no answers, or one that is not a regular expression.
    """
    check_groups(records, source)
    for record in records:
        where = f"{source}, record {record['id']}" if source else f"record {record['id']}"
        if not record.get("answers"):
            raise InputError(f"{where}: has no answers to score by: give it some, or leave it out.")
        if match == "regex":
            check_patterns(record["answers"], where)


def score_predictions(
    records: Sequence[dict[str, Any]], predictions: Sequence[str], match: Match = "words"
) -> list[dict[str, Any]]:
    """Score one prediction per record.

    Args:
        records: Records with `answers`.
        predictions: One prediction per record.
        match: ``"regex"`` if answers are regular expressions. A prediction is exact if one matches from its beginning,
            and its F1 is the same. It holds an answer if one is found anywhere.

    Returns:
        Rows with the record's `id`, `question` and `answers`, the `prediction`, `METRICS` in [0, 1], and `relation`,
        `entity` and `dataset` where the record has them.
    """
    return [
        {
            **{name: record[name] for name in ("id", "question", "answers")},
            "prediction": prediction,
            **(_pattern_scores if match == "regex" else _scores)(prediction, record["answers"]),
            **{name: record[name] for name in GROUPS if name in record},
        }
        for record, prediction in zip(records, predictions, strict=True)
    ]


def _scores(prediction: str, answers: Sequence[str]) -> dict[str, float]:
    return {
        "exact_match": float(exact_match(prediction, answers)),
        "f1": f1_score(prediction, answers),
        "best_subspan_em": float(best_subspan_em(prediction, answers)),
    }


def _pattern_scores(prediction: str, patterns: Sequence[str]) -> dict[str, float]:
    exact = float(begins_with_pattern(prediction, patterns))
    found = float(has_answer(prediction, patterns, "regex"))
    return {"exact_match": exact, "f1": exact, "best_subspan_em": found}


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means of all metrics in percent with their standard errors, over all rows and per relation and data set.

    Args:
        rows: As `score_predictions` gives them.

    Returns:
        `count`, each metric and each ``<metric>_stderr``, ``None`` for a single cluster, and ``by_relation`` and
        ``by_dataset`` with the same inside. If all rows have a `score`: also `exact_match_at_half`, that of the half
        of the answers with the highest scores in percent, and `calibration_error`.
    """
    summary: dict[str, Any] = _means(rows)
    for field in ("relation", "dataset"):
        groups = defaultdict(list)
        for row in rows:
            if field in row:
                groups[row[field]].append(row)
        if groups:
            summary[f"by_{field}"] = {name: _means(group) for name, group in sorted(groups.items())}
    if all("score" in row for row in rows):
        scores, correct = [row["score"] for row in rows], [row["exact_match"] for row in rows]
        summary["exact_match_at_half"] = 100.0 * accuracy_at(0.5, scores, correct)
        summary["calibration_error"] = calibration_error(scores, correct)
    return summary


def clustered_stderr(values: Sequence[float], clusters: Sequence[Any]) -> float:
    """Standard error of a mean whose observations are dependent within clusters (sandwich form, CR1 correction).

    With one observation per cluster it is the usual standard error.

    Args:
        values: Observations.
        clusters: The cluster of each observation.

    Returns:
        The standard error; NaN for a single cluster.
    """
    mean = sum(values) / len(values)
    sums: dict[Any, float] = defaultdict(float)
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] += value - mean
    if len(sums) < 2:
        return float("nan")
    squares = sum(total**2 for total in sums.values()) * len(sums) / (len(sums) - 1)
    return squares**0.5 / len(values)


def finite(number: float) -> float | None:
    """`number`, or ``None`` for NaN, which JSON does not have."""
    return None if math.isnan(number) else number


def _means(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    clusters = [row.get("entity", row["id"]) for row in rows]
    result: dict[str, Any] = {"count": len(rows)}
    for metric in METRICS:
        values = [100.0 * row[metric] for row in rows]
        result[metric] = sum(values) / len(values)
        result[f"{metric}_stderr"] = finite(clustered_stderr(values, clusters))
    return result
