"""From several answers to a question to one: which of them, and how sure it is."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log
from typing import Literal, NamedTuple, get_args

from torch import Tensor

from aag_hf.awakening.answer_scorer import AnswerScorer
from aag_hf.awakening.configuration import AwakeningConfig
from aag_hf.awakening.drafts import DrawingOptions
from aag_hf.data.answers import comparable
from aag_hf.errors import InputError

Aggregation = Literal["vote", "marginal", "fuse", "memory", "best"]
# These read all drafts at once and give one answer; the others choose among answers.
JOINED = ("fuse", "memory")


@dataclass(kw_only=True)
class DraftOptions(DrawingOptions):
    """Several drafts for a question, contexts or answers, and how they become one answer."""

    num_answers: int = field(
        default=1, metadata={"help": "Answers per question, drawn as contexts are; instead of several contexts."}
    )
    aggregation: str = field(
        default="vote", metadata={"help": f"How drafts become one answer: {', '.join(get_args(Aggregation))}."}
    )
    scorer: str | None = field(
        default=None, metadata={"help": "For the aggregation best: a file that AnswerScorer.save wrote."}
    )

    @property
    def several(self) -> bool:
        """Whether there is anything to aggregate."""
        return max(self.num_contexts, self.num_answers) > 1

    @property
    def name(self) -> str:
        """What a table calls it, such as ``"vote of 8 contexts"``."""
        kind = "contexts" if self.num_contexts > 1 else "answers"
        return f"{self.aggregation} of {max(self.num_contexts, self.num_answers)} {kind}"

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            InputError: Names the options and what to do; or the scorer cannot be read.
        """
        if self.aggregation not in get_args(Aggregation):
            raise InputError(
                f"aggregation must be one of {', '.join(get_args(Aggregation))}, got {self.aggregation!r}."
            )
        if self.num_contexts > 1 and self.num_answers > 1:
            raise InputError("num_contexts and num_answers are both above 1: draw contexts or answers.")
        if self.num_answers > 1 and self.aggregation in JOINED:
            raise InputError(f"aggregation {self.aggregation} reads contexts: set num_contexts instead of num_answers.")
        if self.several and self.aggregation == "best":
            if self.scorer is None:
                raise InputError("aggregation best needs a scorer: fit one and save it (docs/how_to/drafts.md).")
            AnswerScorer.load(self.scorer)

    def check_reader(self, config: AwakeningConfig) -> None:
        """Refuse a reader that cannot read the drafts.

        Args:
            config: What it reads.

        Raises:
            InputError: Names what it lacks.
        """
        if self.num_contexts == 1:
            return
        reads_prompt, reads_document = config.context != "none", config.adapter_context != "none"
        if not reads_prompt and not reads_document:
            raise InputError("this reader reads the question alone: set num_answers instead of num_contexts.")
        if self.aggregation == "memory" and not reads_document:
            raise InputError("aggregation memory needs a reader whose adapter is made from documents.")
        if self.aggregation == "fuse" and not reads_prompt:
            raise InputError("aggregation fuse needs a reader that reads a context in its prompt: this one reads none.")
        if self.aggregation == "fuse" and config.fid and self.num_contexts > config.passages:
            raise InputError(f"this reader reads {config.passages} passages, and num_contexts is {self.num_contexts}.")


class Candidate(NamedTuple):
    """One of a question's answers.

    Attributes:
        answer: The answer.
        score: The mean log-probability of its tokens, as it was decoded.
        draft: The place of the draft that was read; 0 where answers are drawn without drafts.
    """

    answer: str
    score: float
    draft: int = 0


def grouped(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    """Candidates whose answers are the same once normalised, the best of each group first, groups as they came up."""
    groups: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        groups[comparable(candidate.answer)].append(candidate)
    return [sorted(group, key=lambda candidate: -candidate.score) for group in groups.values()]


def vote(candidates: Sequence[Candidate]) -> Candidate:
    """The answer that most candidates give; of several, the one with the highest score.

    Returns:
        The best candidate of that answer. Its score is the logarithm of the answer's share of the votes.
    """
    best = max(grouped(candidates), key=lambda group: (len(group), group[0].score))
    return best[0]._replace(score=log(len(best) / len(candidates)))


def marginal(draft_scores: Tensor, log_likelihoods: Tensor) -> Tensor:
    """log p(answer), the sum over drafts of p(draft) p(answer | draft). Exact: no candidate is sampled.

    Args:
        draft_scores: ``(drafts,)``, logarithms of what p(draft) is proportional to.
        log_likelihoods: ``(answers, drafts)``, log p(answer | draft).

    Returns:
        ``(answers,)``.

    Example:

    ```python
    marginal(torch.zeros(2), torch.tensor([[0.5, 0.5], [0.9, 0.0]]).log()).exp()  # 0.5, 0.45
    ```
    """
    return (draft_scores.log_softmax(0) + log_likelihoods).logsumexp(1)
