"""Arguments of the reader's training."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from aag_hf.errors import InputError
from aag_hf.trainers.answer_arguments import AnswerTrainingArguments
from aag_hf.trainers.context_distillation.aligned_terms import ATTENTION, HIDDEN, Alignment, Layers
from aag_hf.trainers.context_distillation.losses import ANNEALING_STEPS, annealed_temperature

TemperatureSchedule = Literal["constant", "annealed"]


@dataclass
class ContextDistillationConfig(AnswerTrainingArguments):
    """The loss of [`ContextDistillationTrainer`], beside transformers' arguments.

    Parameters of the loss (paper, section 3.3): ``alpha · CE(gold) + (1 − alpha) · T² · KL(teacher ‖ student) +
    hidden_weight · L_hid + attention_weight · L_attn``.

    Args:
        alpha (`float`): Weight of the gold answer's cross-entropy when there is a teacher; the paper's distillation
            weight 0.4 is ``alpha=0.6``.
        temperature (`float`): Softmax temperature T of the distillation term.
        temperature_schedule (`"constant"` or `"annealed"`): ``"annealed"`` divides T by ``1 + ln(step // 500 + 1)`` in
            training. Evaluation keeps T, so that its terms can be compared from step to step.
        hidden_weight (`float`): Weight of the hidden states' alignment with the teacher's.
        attention_weight (`float`): Weight of the attentions' alignment; both models need eager attention.
        alignment (`"question"` or `"position"`): Which encoder tokens are compared, beside the answer positions; see
            [`~aag_hf.trainers.context_distillation.aligned_terms.aligned_terms`].
        layers (`"all"` or `"select"`): Align every layer, or the first, the middle and the last.

    Parameters of a teacher that is trained too, with ``(1 − teacher_beta) · CE(gold) + teacher_beta · T² · KL(teacher ‖
    student)`` over its own answer tokens; neither model's loss reaches the other:

    Args:
        train_teacher (`bool`): Train the teacher's parameters that require gradients. The same pass teaches the
            student, so the teacher's dropout is on. The teacher is saved with the student, in the folder
            ``teacher/model``.
        teacher_beta (`float`): Weight of the divergence from the student in the teacher's loss.
        teacher_learning_rate (`float`): The teacher's learning rate. It follows the student's schedule.

    Raises:
        InputError: A value is outside its range.
    """

    alpha: float = field(default=0.6, metadata={"help": "Weight of the answer's cross-entropy beside a teacher."})
    temperature: float = field(default=3.0, metadata={"help": "Softmax temperature of the distillation term."})
    temperature_schedule: TemperatureSchedule = field(
        default="constant", metadata={"help": "'annealed' divides the temperature by 1 + ln(step // 500 + 1)."}
    )
    hidden_weight: float = field(default=0.0, metadata={"help": "Weight of the hidden states' alignment."})
    attention_weight: float = field(
        default=0.0, metadata={"help": "Weight of the attentions' alignment; needs eager attention, which is slower."}
    )
    alignment: Alignment = field(
        default="question", metadata={"help": "Encoder tokens to align: the 'question', or each 'position'."}
    )
    layers: Layers = field(default="all", metadata={"help": "Layers to align: 'all', or 'select' first, middle, last."})
    train_teacher: bool = field(default=False, metadata={"help": "Train the teacher too, as in the paper."})
    teacher_beta: float = field(
        default=0.4, metadata={"help": "Weight of the divergence from the student in a trained teacher's loss."}
    )
    teacher_learning_rate: float = field(default=5e-5, metadata={"help": "Learning rate of a trained teacher."})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("alpha", "teacher_beta"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"{name} must be in [0, 1], got {getattr(self, name)}.")
        if self.temperature <= 0.0:
            raise InputError(f"temperature must be positive, got {self.temperature}.")
        choices = {"temperature_schedule": TemperatureSchedule, "alignment": Alignment, "layers": Layers}
        for name, words in choices.items():
            if getattr(self, name) not in get_args(words):
                raise InputError(f"{name} must be one of {', '.join(get_args(words))}, got {getattr(self, name)!r}.")
        for name in ("hidden_weight", "attention_weight", "teacher_learning_rate"):
            if not getattr(self, name) >= 0.0:
                raise InputError(f"{name} must not be negative, got {getattr(self, name)}.")

    def temperature_at(self, step: int) -> float:
        """The temperature of training step `step`, counted from 0."""
        if self.temperature_schedule == "annealed":
            return annealed_temperature(self.temperature, step)
        return self.temperature

    def temperatures(self, num_steps: int) -> list[float]:
        """All temperatures of `num_steps` of training, and of evaluation, for a teacher cache with `top_k`."""
        if self.temperature_schedule == "constant":
            return [self.temperature]
        return [self.temperature_at(step) for step in range(0, max(num_steps, 1), ANNEALING_STEPS)]

    @property
    def alignment_weights(self) -> dict[str, float]:
        """The weights of the alignment terms that are not 0, by name."""
        weights = {HIDDEN: self.hidden_weight, ATTENTION: self.attention_weight}
        return {name: weight for name, weight in weights.items() if weight > 0.0}
