"""What speaks for each of a question's answers: its probability under all drafts, votes, and the question's own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from torch import Tensor

from aag_hf.awakening.aggregation import Candidate, grouped, marginal
from aag_hf.awakening.answer_scorer import AnswerScorer
from aag_hf.awakening.drafts import Draft
from aag_hf.awakening.likelihood import target_log_probs
from aag_hf.awakening.output import Answered, Drafts
from aag_hf.collators import DataCollatorForContextDistillation, ReaderPrompt

if TYPE_CHECKING:
    from aag_hf.awakening.model import AwakeningModel

# How a base model is asked what question an answer belongs to.
_BACKWARDS = "Answer: {question}\nQuestion:"


@dataclass(frozen=True)
class Evidence:
    """What speaks for a question's different answers, which are in the order of `grouped`.

    Args:
        candidates: All answers, that of the greedy draft first.
        draft_scores: ``(drafts,)``, the mean log-probability of each draft's tokens. p(draft) is proportional to its
            exponential: by the probability of whole texts one draft would count alone.
        log_likelihoods: ``(answers, drafts)``, log p(answer | draft).
        question_log_probs: ``(answers,)``, log p(question | answer) in the base model.
    """

    candidates: list[Candidate]
    draft_scores: Tensor
    log_likelihoods: Tensor
    question_log_probs: Tensor

    @property
    def groups(self) -> list[list[Candidate]]:
        """The candidates of each answer."""
        return grouped(self.candidates)

    @property
    def marginal(self) -> Tensor:
        """``(answers,)``, log p(answer)."""
        return marginal(self.draft_scores, self.log_likelihoods)

    @property
    def table(self) -> Tensor:
        """``(answers, len(EVIDENCE))``, what an [`AnswerScorer`] reads."""
        greedy = self.candidates[0]
        columns = [
            self.marginal,
            torch.tensor([group[0].score for group in self.groups], dtype=torch.float64),
            torch.tensor([len(group) / len(self.candidates) for group in self.groups], dtype=torch.float64),
            torch.tensor([float(greedy in group) for group in self.groups], dtype=torch.float64),
            self.question_log_probs,
        ]
        return torch.stack(columns, dim=1)

    def best(self, scorer: AnswerScorer | None = None) -> Candidate:
        """The answer of the highest probability, by `scorer` or else by the marginal, among these answers.

        Returns:
            Its best candidate. The score is the logarithm of that probability.
        """
        log_probs = self.marginal.log_softmax(0) if scorer is None else scorer.log_probability(self.table)
        best = int(log_probs.argmax())
        return self.groups[best][0]._replace(score=log_probs[best].item())


def evidence_of(
    model: AwakeningModel, questions: Sequence[str], answered: Answered, batch_size: int = 32
) -> list[Evidence]:
    """Score every answer under every draft of its question, and its question under it.

    Args:
        model: The composed model.
        questions: The questions.
        answered: Their answers.
        batch_size: Rows per forward pass.
    """
    drafts = answered.drafts or [[Draft("", 0.0)]] * len(questions)
    answers = [[group[0].answer for group in grouped(candidates)] for candidates in answered.candidates]
    rows: list[int] = []
    records: list[dict[str, Any]] = []
    for first, each, different in zip(starts(drafts), drafts, answers):
        own = range(first, first + len(each))
        for answer in different:
            rows += own
            records += [answered.inputs.records[row] | {"answers": [_written(answer)]} for row in own]
    memory = None if answered.inputs.memory is None else answered.inputs.memory[rows]
    totals = iter(target_log_probs(model.reader, answered.inputs.collator, records, batch_size, memory))
    backwards = iter(_question_log_probs(model, questions, answers, batch_size))
    return [
        Evidence(
            candidates,
            torch.tensor([draft.score for draft in each], dtype=torch.float64),
            torch.tensor([[next(totals) for _ in each] for _ in different], dtype=torch.float64),
            torch.tensor([next(backwards) for _ in different], dtype=torch.float64),
        )
        for each, different, candidates in zip(drafts, answers, answered.candidates)
    ]


def starts(drafts: Drafts) -> list[int]:
    """The place of each question's first draft among those of all."""
    return [0, *accumulate(map(len, drafts))][:-1]


def _question_log_probs(
    model: AwakeningModel, questions: Sequence[str], answers: Sequence[Sequence[str]], batch_size: int
) -> list[float]:
    """log p(question | answer) of each answer, in the model without its adapter."""
    length = model.config.prompt_max_length
    collator = DataCollatorForContextDistillation(
        model.tokenizer,
        bool(model.reader.config.is_encoder_decoder),
        ReaderPrompt(prompt=_BACKWARDS, prompt_max_length=length),
        answer_max_length=length,
    )
    records = [
        {"id": str(number), "question": _written(answer), "answers": [question]}
        for number, (question, different) in enumerate(zip(questions, answers))
        for answer in different
    ]
    reader = model.reader
    with reader.disable_adapter() if isinstance(reader, PeftModel) else nullcontext():
        return target_log_probs(reader, collator, records, batch_size)


def _written(answer: str) -> str:
    """An answer that a record can hold: a reader may also say nothing."""
    return answer or "-"
