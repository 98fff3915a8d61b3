"""Arguments that the trainers of both stages share."""

from dataclasses import dataclass, field

from transformers import Seq2SeqTrainingArguments


@dataclass
class AnswerTrainingArguments(Seq2SeqTrainingArguments):
    """[`~transformers.Seq2SeqTrainingArguments`] with other defaults.

    Args:
        remove_unused_columns (`bool`): Off, since the collator reads the records' own columns, such as `features`.
        logging_steps (`float`): 10, as in TRL. If `eval_strategy` is ``"steps"``, it is also that of `eval_steps`.
        gradient_checkpointing_kwargs (`dict`): Not reentrant by default. Reentrant checkpointing is unsafe on several
            processes.
    """

    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Keep this off, since the collator reads the records' own columns."}
    )

    logging_steps: float = field(
        default=10, metadata={"help": "Log at every so many steps; less than 1 is a share of all steps."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gradient_checkpointing_kwargs:
            # transformers sets this only if nothing at all is given; torch's own default is reentrant.
            self.gradient_checkpointing_kwargs.setdefault("use_reentrant", False)
