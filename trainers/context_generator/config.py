"""Arguments of the context generator's training."""

from dataclasses import dataclass, field

from transformers import Seq2SeqTrainingArguments


@dataclass
class ContextGeneratorConfig(Seq2SeqTrainingArguments):
    """[`~transformers.Seq2SeqTrainingArguments`] of [`ContextGeneratorTrainer`].

    Args:
        remove_unused_columns (`bool`): Off: the collator reads the records' own columns.
    """

    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Keep off: the collator reads the records' own columns."}
    )
