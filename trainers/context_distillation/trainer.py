"""Stage 2 of AAG: a reader learns from gold answers and from a teacher that reads long context."""

from collections import defaultdict
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.trainer_utils import EvalLoopOutput

from aag_hf.data.errors import InputError
from aag_hf.trainers.answer_logits import answer_logits
from aag_hf.trainers.answer_trainer import TEACHER, AnswerTrainer
from aag_hf.trainers.context_distillation.config import ContextDistillationConfig
from aag_hf.trainers.context_distillation.losses import answer_cross_entropy, distillation_kl
from aag_hf.trainers.context_distillation.teacher_cache import cached_distillation_kl, is_cached


class ContextDistillationTrainer(AnswerTrainer):
    """Trains a reader on answers and, with a teacher, on the teacher's distribution over the answer tokens.

    Student and teacher read different prompts about the same question; only the answer tokens meet in the loss. Each
    term is logged by its name: `answer_cross_entropy`, `distillation_kl`.

    Args:
        teacher_model: A model of the same vocabulary, frozen here; it may share its weights with the student (see
            [`~aag_hf.awakening.share_weights`]). Not needed where the collator has a `teacher_cache`. Without either
            the loss is the cross-entropy alone.
        **kwargs: As in [`~transformers.Seq2SeqTrainer`]; `args` is a [`ContextDistillationConfig`], `data_collator` a
            [`~aag_hf.collators.DataCollatorForContextDistillation`].

    Raises:
        InputError: The teacher's vocabulary is not the student's, the teacher holds weights that the student trains, or
            a batch has no teacher inputs.

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

    def __init__(self, *args: Any, teacher_model: PreTrainedModel | nn.Module | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.teacher: nn.Module | None = None
        self._training_terms: dict[str, list[torch.Tensor]] = defaultdict(list)
        self._evaluation_terms: dict[str, list[torch.Tensor]] = defaultdict(list)
        if teacher_model is not None:
            self._check_vocabulary(teacher_model)
            self._check_trained_apart(teacher_model)
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
        terms = {"answer_cross_entropy": answer_cross_entropy(logits, labels)}
        loss = terms["answer_cross_entropy"]
        if self.args.alpha < 1.0 and (self.teacher is not None or is_cached(teacher_inputs)):
            terms["distillation_kl"] = self._distillation_kl(logits, labels, teacher_inputs)
            loss = self.args.alpha * loss + (1.0 - self.args.alpha) * terms["distillation_kl"]
        collected = self._training_terms if model.training else self._evaluation_terms
        for name, value in terms.items():
            collected[name].append(value.detach().float())
        return (loss, {"logits": logits}) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            logs = {**logs, **self._means(self._training_terms)}
        super().log(logs, *args, **kwargs)

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> EvalLoopOutput:
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        means = self._means(self._evaluation_terms)
        output.metrics.update({f"{metric_key_prefix}_{name}": mean for name, mean in means.items()})
        return output

    def _means(self, terms: dict[str, list[torch.Tensor]]) -> dict[str, float]:
        """The mean of each term over what was collected and over the processes; empties `terms`."""
        means = {name: self.accelerator.reduce(torch.stack(v).mean(), "mean").item() for name, v in terms.items()}
        terms.clear()
        return means

    def _distillation_kl(self, logits: torch.Tensor, labels: torch.Tensor, teacher: dict[str, Any]) -> torch.Tensor:
        if is_cached(teacher):
            return cached_distillation_kl(logits, labels, teacher, self.args.temperature)
        return distillation_kl(logits, self._teacher_logits(teacher, labels), None, self.args.temperature)

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

    def _check_trained_apart(self, teacher: nn.Module) -> None:
        trained = {id(parameter) for parameter in self.model.parameters() if parameter.requires_grad}
        if any(id(parameter) in trained for parameter in teacher.parameters()):
            raise InputError(
                "the teacher shares weights that the student trains: load the teacher apart, or train an adapter."
            )
