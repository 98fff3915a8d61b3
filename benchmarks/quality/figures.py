"""The table of what drafts are worth, and how well each kind of evidence ranks answers."""

from collections.abc import Sequence
from typing import Any

import torch
from kept_evidence import Records, Split
from torch import Tensor

from aag_hf.awakening.aggregation import Candidate, vote
from aag_hf.awakening.answer_scorer import AnswerScorer
from aag_hf.awakening.evidence import Evidence
from aag_hf.evaluation.choosing import right_answers
from aag_hf.evaluation.confidence import accuracy_at, calibration_error
from aag_hf.evaluation.metrics import best_subspan_em, exact_match
from aag_hf.evaluation.scores import clustered_stderr

HEADING = (
    "| way of answering | EM % | sub-span % | EM against one closed-book answer | ECE | EM of the surer half % |\n"
    "|---|---|---|---|---|---|"
)


class Results:
    """Rows of the table, each compared question by question with the row that came first."""

    def __init__(self, records: Records):
        self.records = records
        self.rows: list[dict[str, Any]] = []
        self._baseline: list[float] = []

    def add(self, name: str, chosen: Sequence[Candidate]) -> None:
        """Score the answers and print their row."""
        right = [float(exact_match(c.answer, r["answers"])) for c, r in zip(chosen, self.records, strict=True)]
        found = [float(best_subspan_em(c.answer, r["answers"])) for c, r in zip(chosen, self.records)]
        self._baseline = self._baseline or right
        gained = [100 * (one - other) for one, other in zip(right, self._baseline)]
        entities = [record.get("entity", record["id"]) for record in self.records]
        scores = [candidate.score for candidate in chosen]
        row = {
            "name": name,
            "exact_match": 100 * sum(right) / len(right),
            "sub_span": 100 * sum(found) / len(found),
            "gain": sum(gained) / len(gained),
            "gain_stderr": clustered_stderr(gained, entities),
            "calibration_error": calibration_error(scores, right),
            "exact_match_at_half": 100 * accuracy_at(0.5, scores, right),
        }
        self.rows.append(row)
        print(
            f"| {name} | {row['exact_match']:.1f} | {row['sub_span']:.1f} | {row['gain']:+.1f} ± "
            f"{row['gain_stderr']:.1f} | {row['calibration_error']:.2f} | {row['exact_match_at_half']:.1f} |",
            flush=True,
        )

    def choose(self, name: str, development: Split, test: Split, number: int) -> None:
        """Rows of one way of drawing: voted, by the marginal, chosen by a scorer fitted on `development`, and any."""
        seen, asked = development.first(number), test.first(number)
        right = torch.cat([right_answers(*pair) for pair in zip(seen.evidence, seen.records)])
        scorer = AnswerScorer.fit(torch.cat([one.table for one in seen.evidence]), right)
        self.add(f"{name}, {number}: vote", [vote(one.candidates) for one in asked.evidence])
        self.add(f"{name}, {number}: marginal", [one.best() for one in asked.evidence])
        self.add(f"{name}, {number}: best", [one.best(scorer) for one in asked.evidence])
        oracle = [_oracle(one, record) for one, record in zip(asked.evidence, asked.records)]
        self.add(f"{name}, {number}: any of them right", oracle)


def ranking(split: Split) -> dict[str, float]:
    """The share of pairs of a right and a wrong answer that each kind of evidence ranks rightly (AUC)."""
    right = [right_answers(one, record) for one, record in zip(split.evidence, split.records)]
    told = {}
    for name, column in {"log p(answer)": 0, "share of drafts": 2, "log p(question | answer)": 4}.items():
        values = [one.table[:, column] for one in split.evidence]
        within = [_wins(value, good) for value, good in zip(values, right)]
        told[f"{name}, among the answers to a question"] = _share(within)
        told[f"{name}, among all answers"] = _share([_wins(torch.cat(values), torch.cat(right))])
    greedy = torch.tensor([one.candidates[0].score for one in split.evidence], dtype=torch.float64)
    good = [float(exact_match(e.candidates[0].answer, r["answers"])) for e, r in zip(split.evidence, split.records)]
    return told | {"score, among the greedy answers": _share([_wins(greedy, torch.tensor(good))])}


def exact(chosen: Sequence[Candidate], records: Records) -> float:
    """Exact match in percent."""
    return 100 * sum(exact_match(c.answer, r["answers"]) for c, r in zip(chosen, records)) / len(records)


def _oracle(evidence: Evidence, record: dict[str, Any]) -> Candidate:
    return max(evidence.candidates, key=lambda candidate: exact_match(candidate.answer, record["answers"]))


def _wins(values: Tensor, right: Tensor) -> tuple[float, int]:
    """Pairs in which the right answer has the higher value, ties as half of one, and all pairs."""
    difference = values[right == 1][:, None] - values[right == 0][None]
    return (difference > 0).sum().item() + (difference == 0).sum().item() / 2, difference.numel()


def _share(counts: Sequence[tuple[float, int]]) -> float:
    return sum(wins for wins, _ in counts) / max(1, sum(pairs for _, pairs in counts))
