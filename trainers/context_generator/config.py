"""Arguments of the context generator's training."""

from dataclasses import dataclass

from aag_hf.trainers.answer_arguments import AnswerTrainingArguments


@dataclass
class ContextGeneratorConfig(AnswerTrainingArguments):
    """[`~.answer_arguments.AnswerTrainingArguments`] of [`ContextGeneratorTrainer`]."""
