"""A small trained head: the probability that an answer is right, from what speaks for it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from aag_hf.data.jsonl import write_whole
from aag_hf.errors import InputError

# What speaks for an answer; `Evidence.table` has it in this order.
EVIDENCE = ("log_probability", "log_mean_probability", "share_of_drafts", "is_greedy", "question_log_probability")


@dataclass(frozen=True)
class AnswerScorer:
    """Logistic regression on the evidence for an answer.

    Args:
        mean: The mean of each kind of evidence in the data it was fitted on.
        scale: The standard deviation of each.
        weight: The weight of each, in those units.
        bias: Added to the sum.

    Example:

    ```python
    scorer = AnswerScorer.fit(evidence, right)
    scorer.save("runs/scorer.json")
    AnswerScorer.load("runs/scorer.json").log_probability(evidence).exp()
    ```
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weight: tuple[float, ...]
    bias: float

    @classmethod
    def fit(cls, evidence: Tensor, right: Tensor, l2: float = 1.0) -> AnswerScorer:
        """The most likely weights, under a normal prior that keeps them finite.

        Args:
            evidence: ``(answers, len(EVIDENCE))``, of answers of any number of questions.
            right: ``(answers,)``, 1 for right answers, else 0.
            l2: The prior's precision: its pull on weights, the bias left out, counts like `l2` answers.

        Raises:
            InputError: There are no right answers, or no wrong ones.
        """
        evidence, right = evidence.double(), right.double()
        if not 0 < right.sum() < len(right):
            raise InputError("a scorer learns from right and wrong answers: give it more questions.")
        mean, scale = evidence.mean(0), evidence.std(0).clamp(min=1e-6)
        known = (evidence - mean) / scale
        parameters = torch.zeros(evidence.shape[1] + 1, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-9)

        def loss() -> Tensor:
            optimizer.zero_grad()
            logits = known @ parameters[:-1] + parameters[-1]
            total = F.binary_cross_entropy_with_logits(logits, right, reduction="sum")
            total = total + l2 / 2 * parameters[:-1].square().sum()
            total.backward()
            return total

        optimizer.step(loss)
        *weight, bias = parameters.detach().tolist()
        return cls(tuple(mean.tolist()), tuple(scale.tolist()), tuple(weight), bias)

    def log_probability(self, evidence: Tensor) -> Tensor:
        """``(answers,)``: the logarithm of the probability that each answer is right."""
        mean, scale, weight = (torch.tensor(v, dtype=torch.float64) for v in (self.mean, self.scale, self.weight))
        return F.logsigmoid((evidence.double() - mean) / scale @ weight + self.bias)

    def save(self, path: str | Path) -> None:
        """Write it to `path`, as JSON."""
        write_whole((json.dumps({"evidence": EVIDENCE, **asdict(self)}, indent=2) + "\n").encode(), Path(path))

    @classmethod
    def load(cls, path: str | Path) -> AnswerScorer:
        """What `save` wrote.

        Raises:
            InputError: There is none, or it is damaged or of another version.
        """
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            mean, scale, weight = (_numbers(found[name]) for name in ("mean", "scale", "weight"))
            (bias,) = _numbers([found["bias"]])
            fits = tuple(found["evidence"]) == EVIDENCE and len(mean) == len(scale) == len(weight) == len(EVIDENCE)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}): name a file of AnswerScorer.save.") from None
        except (ValueError, KeyError, TypeError, RecursionError):
            fits = False
        if not fits:
            raise InputError(f"{path}: expected a scorer of the evidence {', '.join(EVIDENCE)}: fit it again.")
        return cls(mean, scale, weight, bias)


def _numbers(values: Sequence[float]) -> tuple[float, ...]:
    numbers = tuple(map(float, values))
    if not all(map(math.isfinite, numbers)):
        raise ValueError
    return numbers
