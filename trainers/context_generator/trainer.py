"""Stage 1 of AAG: a language model learns to write a question's compressed context from memory."""

from typing import Any

import torch
from torch import nn

from aag_hf.trainers.answer_logits import answer_logits
from aag_hf.trainers.answer_trainer import AnswerTrainer
from aag_hf.trainers.context_distillation.losses import answer_cross_entropy


class ContextGeneratorTrainer(AnswerTrainer):
    """Cross-entropy of the compressed context given the question (paper, section 3.1).

    Takes everything [`~transformers.Seq2SeqTrainer`] takes; use it with [`ContextGeneratorConfig`] and
    [`~aag_hf.collators.DataCollatorForContextGeneration`]. The model is causal or encoder-decoder, whole or with a PEFT
    adapter.
    """

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        logits, labels = answer_logits(model, inputs)
        loss = answer_cross_entropy(logits, labels)
        return (loss, {"logits": logits}) if return_outputs else loss
