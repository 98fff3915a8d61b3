"""Fits what chooses among a question's answers, on questions whose answers are known."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aag_hf.awakening import AwakeningModel
from aag_hf.awakening.aggregation import Candidate, DraftOptions
from aag_hf.awakening.answer_scorer import AnswerScorer
from aag_hf.awakening.answering import answer_each
from aag_hf.awakening.evidence import Evidence, evidence_of
from aag_hf.data.folds import fold_of
from aag_hf.evaluation.evaluator import given_drafts
from aag_hf.evaluation.metrics import exact_match

Records = Sequence[dict[str, Any]]


def fit_answer_scorer(
    model: AwakeningModel, records: Records, options: DraftOptions, batch_size: int = 32
) -> AnswerScorer:
    """The head of the aggregation ``"best"``, for a reader and a way of drawing.

    Args:
        model: The composed model.
        records: Development records, with `answers`. The model must not have been trained on them: of what it learned
            by heart it is surer than of what it knows.
        options: How drafts are drawn. Contexts that all records have as `generated_contexts` are read instead.
        batch_size: Rows per forward pass.

    Raises:
        InputError: As [`AwakeningModel.generate`] with these options; or no answer is right, or none wrong.

    Example:

    ```python
    options = DraftOptions(num_answers=8)
    fit_answer_scorer(model, read_records("dev.jsonl.gz"), options).save("scorer.json")
    model.generate(questions, drafts=DraftOptions(num_answers=8, aggregation="best", scorer="scorer.json"))
    ```
    """
    questions = [record["question"] for record in records]
    drafts = given_drafts(records) if options.num_contexts > 1 else None
    answered = answer_each(model, questions, options, drafts, batch_size)
    evidence = evidence_of(model, questions, answered, batch_size)
    right = [right_answers(found, record) for found, record in zip(evidence, records)]
    return AnswerScorer.fit(torch.cat([found.table for found in evidence]), torch.cat(right))


def right_answers(evidence: Evidence, record: dict[str, Any]) -> Tensor:
    """``(answers,)``: 1 for those that match exactly, else 0."""
    right = [float(exact_match(group[0].answer, record["answers"])) for group in evidence.groups]
    return torch.tensor(right, dtype=torch.float64)


def cross_fitted(records: Records, evidence: Sequence[Evidence], folds: int = 5) -> list[Candidate]:
    """The best answer to each question by a scorer that has seen no question about the same entity.

    Args:
        records: The questions, with `answers`.
        evidence: What speaks for the answers to each.
        folds: How many scorers are fitted, each without one part of the entities.

    Raises:
        InputError: As `AnswerScorer.fit`.
    """
    fold = [fold_of(record, folds) for record in records]
    scorers = {}
    for left_out in set(fold):
        seen = [(one, record) for one, record, own in zip(evidence, records, fold) if own != left_out]
        tables, right = torch.cat([one.table for one, _ in seen]), torch.cat([right_answers(*pair) for pair in seen])
        scorers[left_out] = AnswerScorer.fit(tables, right)
    return [one.best(scorers[own]) for one, own in zip(evidence, fold)]
