"""Arguments that the trainers of both stages share."""

from dataclasses import dataclass, field

from transformers import Seq2SeqTrainingArguments


@dataclass
class AnswerTrainingArguments(Seq2SeqTrainingArguments):
    """[`~transformers.Seq2SeqTrainingArguments`] with other defaults.

    Args:
        remove_unused_columns (`bool`): Off: the collator reads the records' own columns, `features` among them.
        gradient_checkpointing_kwargs (`dict`): Not reentrant unless they say so, which is unsafe on several processes.
    """

    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Keep off: the collator reads the records' own columns."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gradient_checkpointing_kwargs:
            # transformers does so where nothing at all is said; torch's own default is the other kind.
            self.gradient_checkpointing_kwargs.setdefault("use_reentrant", False)
