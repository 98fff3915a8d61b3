"""What speaks for the answers to a split's questions, kept as JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from aag_hf.awakening import AwakeningModel
from aag_hf.awakening.aggregation import Candidate, DraftOptions
from aag_hf.awakening.answering import answer_each
from aag_hf.awakening.evidence import Evidence, evidence_of
from aag_hf.evaluation.evaluator import given_drafts
from aag_hf.evaluation.report import write_json

Records = Sequence[dict[str, Any]]


@dataclass
class Split:
    """Questions, and what speaks for the answers to each."""

    records: Records
    evidence: list[Evidence]

    def first(self, number: int) -> "Split":
        """The same with the first drafts alone: their answers do not depend on the others."""
        return Split(self.records, [_first(one, number) for one in self.evidence])


def read_evidence(model: AwakeningModel, records: Records, options: DraftOptions, rows: int, kept: Path) -> Split:
    """Answers and evidence for all questions; from the file `kept` if it is there."""
    if not kept.exists():
        questions = [record["question"] for record in records]
        drafts = given_drafts(records) if options.num_contexts > 1 else None
        answered = answer_each(model, questions, options, drafts, rows)
        write_json([_plain(one) for one in evidence_of(model, questions, answered, rows)], kept)
    return Split(records, [_evidence(one) for one in json.loads(kept.read_text(encoding="utf-8"))])


def _first(evidence: Evidence, number: int) -> Evidence:
    few = replace(evidence, candidates=evidence.candidates[:number])
    # Answers stand as they came up, so those of the first drafts are the first answers.
    answers = len(few.groups)
    return replace(
        few,
        draft_scores=few.draft_scores[:number],
        log_likelihoods=few.log_likelihoods[:answers, :number],
        question_log_probs=few.question_log_probs[:answers],
    )


def _plain(evidence: Evidence) -> dict[str, Any]:
    tensors = {name: value.tolist() for name, value in vars(evidence).items() if isinstance(value, torch.Tensor)}
    return {"candidates": evidence.candidates, **tensors}


def _evidence(plain: dict[str, Any]) -> Evidence:
    tensors = {n: torch.tensor(v, dtype=torch.float64) for n, v in plain.items() if n != "candidates"}
    return Evidence([Candidate(*one) for one in plain["candidates"]], **tensors)
