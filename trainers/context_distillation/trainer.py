"""Stage 2 of AAG: a reader learns from gold answers and from a teacher that reads long context."""

from collections import defaultdict
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.trainer_utils import EvalLoopOutput

from aag_hf.data.errors import InputError
from aag_hf.trainers.answer_logits import AnswerOutputs, answer_outputs
from aag_hf.trainers.answer_trainer import TEACHER, AnswerTrainer
from aag_hf.trainers.context_distillation.aligned_terms import ATTENTION, Reading, aligned_terms, check_alignable
from aag_hf.trainers.context_distillation.config import ContextDistillationConfig
from aag_hf.trainers.context_distillation.losses import answer_cross_entropy, distillation_kl
from aag_hf.trainers.context_distillation.teacher_cache import cached_distillation_kl, check_temperatures, is_cached


class ContextDistillationTrainer(AnswerTrainer):
    """Trains a reader on answers and, with a teacher, on the teacher's distribution over the answer tokens.

    Student and teacher read different prompts about the same question; the answer tokens meet in the loss and, if
    `args` give alignment a weight, states at tokens that both read. Each term is logged by its name:
    `answer_cross_entropy`, `distillation_kl`, `hidden_alignment`, `attention_alignment`.

    Args:
        teacher_model: A model of the same vocabulary, frozen here; it may share its weights with the student (see
            [`~aag_hf.awakening.share_weights`]). Not needed where the collator has a `teacher_cache`. Without either
            the loss is the cross-entropy alone.
        **kwargs: As in [`~transformers.Seq2SeqTrainer`]; `args` is a [`ContextDistillationConfig`], `data_collator` a
            [`~aag_hf.collators.DataCollatorForContextDistillation`].

    Raises:
        InputError: The teacher's vocabulary is not the student's, the teacher holds weights that the student trains,
            the states of the two cannot be aligned, or a batch has no teacher inputs.

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
            if self.args.alignment_weights:
                check_alignable(self.model, teacher_model, self.args.alignment_weights, self.args.alignment)
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
        student = answer_outputs(model, student_inputs | self._states_to_return())
        terms = {"answer_cross_entropy": answer_cross_entropy(student.logits, student.labels)}
        has_teacher = self.teacher is not None or is_cached(teacher_inputs)
        if has_teacher:
            temperature = self.args.temperature_at(self.state.global_step) if model.training else self.args.temperature
            terms |= self._teacher_terms(student, student_inputs, teacher_inputs, temperature)
        weights = {
            "answer_cross_entropy": self.args.alpha if has_teacher else 1.0,
            "distillation_kl": 1.0 - self.args.alpha,
            **self.args.alignment_weights,
        }
        loss = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
        collected = self._training_terms if model.training else self._evaluation_terms
        for name, value in terms.items():
            collected[name].append(value.detach().float())
        return (loss, {"logits": student.logits}) if return_outputs else loss

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

    def _teacher_terms(
        self, student: AnswerOutputs, student_inputs: dict[str, Any], teacher_inputs: dict[str, Any], temperature: float
    ) -> dict[str, torch.Tensor]:
        """The terms that need the teacher, of those that have a weight."""
        distilled, aligned = self.args.alpha < 1.0, self.args.alignment_weights
        if is_cached(teacher_inputs):
            if aligned:
                raise InputError(
                    "a teacher cache holds logits and no states: set hidden_weight and attention_weight to 0, or give "
                    "the trainer the teacher_model and the collator no cache."
                )
            if not distilled:
                return {}
            # Before the first step, not hours later.
            check_temperatures(teacher_inputs, self.args.temperatures(self.state.max_steps))
            kl = cached_distillation_kl(student.logits, student.labels, teacher_inputs, temperature)
            return {"distillation_kl": kl}
        if not distilled and not aligned:
            return {}
        teacher = self._teacher_outputs(teacher_inputs, student.labels)
        terms = {}
        if distilled:
            terms["distillation_kl"] = distillation_kl(student.logits, teacher.logits, None, temperature)
        if aligned:
            readings = Reading(student_inputs, student.states), Reading(teacher_inputs, teacher.states)
            terms |= aligned_terms(*readings, aligned, self.args.alignment, self.args.layers)
        return terms

    @torch.no_grad()
    def _teacher_outputs(self, inputs: dict[str, Any], labels: torch.Tensor) -> AnswerOutputs:
        if not inputs:
            raise InputError("the batch has no teacher inputs: give the collator a teacher_context.")
        assert self.teacher is not None
        teacher = answer_outputs(self.teacher, inputs | self._states_to_return())
        if not torch.equal(labels, teacher.labels):
            raise InputError("student and teacher rows end in different answers: collate both from the same records.")
        return teacher

    def _states_to_return(self) -> dict[str, bool]:
        weights = self.args.alignment_weights
        if self.teacher is None or not weights:
            return {}
        # T5 takes attentions of an encoder called apart, as FiD's is, for hidden states where these are absent.
        return {"output_hidden_states": True, "output_attentions": ATTENTION in weights}

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
