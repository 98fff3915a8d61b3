"""What the composed model gives."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from aag_hf.awakening.aggregation import Candidate
from aag_hf.awakening.drafts import Draft
from aag_hf.awakening.reader_inputs import ReaderInputs

Drafts = Sequence[Sequence[Draft]]


@dataclass
class AwakeningOutput:
    """What [`AwakeningModel.generate`] gives.

    Args:
        answers: One answer per question.
        contexts: What the reader read beside each question; ``None`` where it reads the question alone. Of several
            drafts, the one that the answer comes from, or all of them where they are read together.
        features: ``(questions, feature_dim)``; ``None`` for a reader without a question encoder, and with
            drafts.
        seconds: Seconds that each stage took for all questions: `context`, `memory`, `features`, `answer`.
        input_tokens: Prompt tokens the reader read.
        scores: The mean log-probability of each answer's tokens, at most 0; ``None`` for beams and assisted decoding.
            Of answers that were voted, marginalised or chosen: the logarithm of their probability by that.
        drafts: The contexts drawn for each question; ``None`` if there is but one.
    """

    answers: list[str]
    contexts: list[str] | None
    features: torch.Tensor | None
    seconds: dict[str, float]
    input_tokens: int
    scores: list[float] | None = None
    drafts: list[list[Draft]] | None = None


@dataclass
class Answered:
    """All answers of each question, and how they came about.

    Args:
        candidates: For each question, one answer per draft, that of the greedy draft first.
        drafts: The contexts that were read; ``None`` where answers were drawn.
        inputs: What the reader was given, draft by draft and question by question.
        input_tokens: Prompt tokens the reader read.
        seconds: Seconds that each stage took.
    """

    candidates: list[list[Candidate]]
    drafts: Drafts | None
    inputs: ReaderInputs
    input_tokens: int
    seconds: dict[str, float]
