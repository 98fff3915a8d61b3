"""Stage 1 of AAG: trains a language model to write the compressed context of a question from memory."""

from typing import Any

from torch import nn

from aag_hf.trainers.answer_logits import answer_outputs
from aag_hf.trainers.answer_trainer import AnswerTrainer, Terms
from aag_hf.trainers.context_distillation.losses import answer_cross_entropy


class ContextGeneratorTrainer(AnswerTrainer):
    """Cross-entropy of the compressed context given the question (paper, section 3.1).

    Takes everything [`~transformers.Seq2SeqTrainer`] takes; use it with [`ContextGeneratorConfig`] and
    [`~aag_hf.collators.DataCollatorForContextGeneration`]. The model is causal or encoder-decoder, whole or with a PEFT
    adapter.
    """

    def compute_terms(self, model: nn.Module, inputs: dict[str, Any]) -> Terms:
        answers = answer_outputs(model, inputs)
        terms = {"answer_cross_entropy": answer_cross_entropy(answers.logits, answers.labels)}
        return Terms(answers, terms, {"answer_cross_entropy": 1.0})
