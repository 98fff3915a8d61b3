"""Arguments of the reader's training."""

from dataclasses import dataclass, field

from transformers import Seq2SeqTrainingArguments

from aag_hf.data.errors import InputError


@dataclass
class ContextDistillationConfig(Seq2SeqTrainingArguments):
    """[`~transformers.Seq2SeqTrainingArguments`] of [`ContextDistillationTrainer`].

    Parameters of the loss (paper, section 3.3): ``alpha · CE(gold) + (1 − alpha) · T² · KL(teacher ‖ student)``.

    Args:
        alpha (`float`): Weight of the gold answer's cross-entropy when there is a teacher; the paper's distillation
            weight 0.4 is ``alpha=0.6``.
        temperature (`float`): Softmax temperature T of the distillation term.

    Parameters of the Trainer with another default:

    Args:
        remove_unused_columns (`bool`): Off: the collator reads the records' own columns, `features` among them.

    Raises:
        InputError: A value outside its range.
    """

    alpha: float = field(default=0.6, metadata={"help": "Weight of the answer's cross-entropy beside a teacher."})
    temperature: float = field(default=3.0, metadata={"help": "Softmax temperature of the distillation term."})
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Keep off: the collator reads the records' own columns."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.alpha <= 1.0:
            raise InputError(f"alpha must be in [0, 1], got {self.alpha}.")
        if self.temperature <= 0.0:
            raise InputError(f"temperature must be positive, got {self.temperature}.")
