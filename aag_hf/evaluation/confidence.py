"""What the scores of answers are worth: calibration, and accuracy where only the surest answers count."""

import math
from collections.abc import Sequence

BINS = 10


def accuracy_at(coverage: float, scores: Sequence[float], correct: Sequence[float]) -> float:
    """The mean correctness of the answers with the highest scores.

    Args:
        coverage: Their share of all answers, in (0, 1].
        scores: One per answer; higher is surer.
        correct: One per answer, in [0, 1].

    Example:

    ```python
    accuracy_at(0.5, scores=[-0.1, -3.0, -0.2, -2.0], correct=[1, 0, 1, 1])  # 1.0
    ```
    """
    surest = _by_score(scores, correct)[: math.ceil(coverage * len(scores))]
    return sum(surest) / len(surest)


def risk_coverage(scores: Sequence[float], correct: Sequence[float]) -> tuple[list[float], list[float]]:
    """The share of wrong answers among the surest, as more and more of them count.

    Returns:
        Coverages from ``1 / n`` to 1, and the risk at each.
    """
    wrong = [1 - value for value in _by_score(scores, correct)]
    risks = [sum(wrong[:number]) / number for number in range(1, len(wrong) + 1)]
    return [number / len(wrong) for number in range(1, len(wrong) + 1)], risks


def calibration_error(scores: Sequence[float], correct: Sequence[float]) -> float:
    """The expected calibration error (ECE) of ``exp(score)`` as a probability, over ten bins of equal width.

    Args:
        scores: Mean log-probabilities, at most 0.
        correct: One per answer, in [0, 1].
    """
    bins: dict[int, list[tuple[float, float]]] = {}
    for score, value in zip(scores, correct, strict=True):
        probability = math.exp(score)
        bins.setdefault(min(int(probability * BINS), BINS - 1), []).append((probability, value))
    return sum(abs(sum(p - value for p, value in members)) for members in bins.values()) / len(scores)


def _by_score(scores: Sequence[float], correct: Sequence[float]) -> list[float]:
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    return [correct[i] for i in order]
