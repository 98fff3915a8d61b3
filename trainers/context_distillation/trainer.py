"""Stage 2 of AAG: a reader learns from gold answers and from a teacher that reads long context."""

from collections import defaultdict
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, Seq2SeqTrainer

from aag_hf.data.errors import InputError
from aag_hf.trainers.answer_logits import answer_logits
from aag_hf.trainers.context_distillation.config import ContextDistillationConfig
from aag_hf.trainers.context_distillation.losses import answer_cross_entropy, distillation_kl

TEACHER = "teacher_"


class ContextDistillationTrainer(Seq2SeqTrainer):
    """Trains a reader on answers and, with a teacher, on the teacher's distribution over the answer tokens.

    Student and teacher read different prompts about the same question; only the answer tokens meet in the loss. Each
    term is logged by its name: `answer_cross_entropy`, `distillation_kl`.

    Args:
        teacher_model: A model of the same vocabulary, frozen here; it may share its weights with the student (see
            [`~aag_hf.awakening.share_weights`]). Without one the loss is the cross-entropy alone.
        **kwargs: As in [`~transformers.Seq2SeqTrainer`]; `args` is a [`ContextDistillationConfig`], `data_collator` a
            [`~aag_hf.collators.DataCollatorForContextDistillation`].

    Raises:
        InputError: The teacher's vocabulary is not the student's, or a batch has no teacher inputs.

    Example:

    ```python
    trainer = ContextDistillationTrainer(
        model=student,
        teacher_model=teacher,
        args=ContextDistillationConfig("runs/reader", alpha=0.6, temperature=3.0),
        train_dataset=records,
        data_collator=DataCollatorForContextDistillation(tokenizer, teacher_context="passages", needs_features=True),
    )
    trainer.train()
    ```
    """

    args: ContextDistillationConfig
    # The loss is a mean over the local batch: the Trainer divides by the accumulation steps.
    loss_is_scaled_for_ga = False

    def __init__(self, *args: Any, teacher_model: PreTrainedModel | nn.Module | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.teacher: nn.Module | None = None
        self._terms: dict[str, list[torch.Tensor]] = defaultdict(list)
        if teacher_model is not None:
            self._check_vocabulary(teacher_model)
            teacher_model.requires_grad_(False)
            self.teacher = self.accelerator.prepare_model(teacher_model, evaluation_mode=True).eval()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        teacher_inputs = {n.removeprefix(TEACHER): v for n, v in inputs.items() if n.startswith(TEACHER)}
        student_inputs = {n: v for n, v in inputs.items() if not n.startswith(TEACHER)}
        logits, labels = answer_logits(model, student_inputs)
        loss = self._log_term("answer_cross_entropy", answer_cross_entropy(logits, labels))
        if self.teacher is not None and self.args.alpha < 1.0:
            teacher_logits = self._teacher_logits(teacher_inputs, labels)
            kl = self._log_term("distillation_kl", distillation_kl(logits, teacher_logits, None, self.args.temperature))
            loss = self.args.alpha * loss + (1.0 - self.args.alpha) * kl
        return (loss, {"logits": logits}) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        prefix = "eval_" if any(name.startswith("eval_") for name in logs) else ""
        logs = {**logs, **{prefix + name: torch.stack(v).mean().item() for name, v in self._terms.items()}}
        self._terms.clear()
        super().log(logs, *args, **kwargs)

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, *args: Any, **kw: Any
    ):
        if self.args.predict_with_generate and not prediction_loss_only:
            inputs = {name: value for name, value in inputs.items() if not name.startswith(TEACHER)}
        return super().prediction_step(model, inputs, prediction_loss_only, *args, **kw)

    @torch.no_grad()
    def _teacher_logits(self, inputs: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
        if not inputs:
            raise InputError("the batch has no teacher inputs: give the collator a teacher_context.")
        logits, teacher_labels = answer_logits(self.teacher, inputs)
        if not torch.equal(labels, teacher_labels):
            raise InputError("student and teacher rows end in different answers: collate both from the same records.")
        return logits

    def _check_vocabulary(self, teacher: nn.Module) -> None:
        sizes = [model.config.get_text_config().vocab_size for model in (self.model, teacher)]
        if sizes[0] != sizes[1]:
            raise InputError(
                f"the teacher's vocabulary has {sizes[1]} tokens, the student's {sizes[0]}: their distributions can "
                "only be compared over the same tokens."
            )

    def _log_term(self, name: str, value: torch.Tensor) -> torch.Tensor:
        self._terms[name].append(value.detach().float())
        return value
