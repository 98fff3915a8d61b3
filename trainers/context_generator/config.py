"""Arguments of the context generator's training."""

from dataclasses import dataclass

from aag_hf.trainers.answer_arguments import AnswerTrainingArguments


@dataclass
class ContextGeneratorConfig(AnswerTrainingArguments):
    """Arguments of [`ContextGeneratorTrainer`]: transformers', with this package's defaults."""
