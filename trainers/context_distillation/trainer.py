"""Stage 2 of AAG: trains a reader on gold answers and on a teacher that reads long context."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.trainer_utils import BestRun

from aag_hf.errors import InputError
from aag_hf.trainers.answer_logits import PACKED, AnswerOutputs, answer_outputs
from aag_hf.trainers.answer_trainer import AnswerTrainer, Terms
from aag_hf.trainers.batch_rows import TEACHER
from aag_hf.trainers.context_distillation.aligned_terms import (
    Reading,
    aligned_terms,
    check_alignable,
    check_returns_states,
    states_to_return,
)
from aag_hf.trainers.context_distillation.config import ContextDistillationConfig
from aag_hf.trainers.context_distillation.losses import answer_cross_entropy, distillation_kl
from aag_hf.trainers.context_distillation.teacher_cache.columns import CachedColumns
from aag_hf.trainers.context_distillation.trained_teacher import (
    TEACHER_FOLDER,
    TeacherUpdates,
    add_parameters,
    check_trained_apart,
)
from aag_hf.trainers.packing import check_rows_apart


class ContextDistillationTrainer(AnswerTrainer):
    """Trains a reader on answers and, with a teacher, on the teacher's distribution over the answer tokens.

    Student and teacher read different prompts about the same question. The loss compares them at the answer tokens and,
    if `args` give alignment a weight, compares states at tokens that both read. Each term is logged by its name:
    `answer_cross_entropy`, `distillation_kl`, `hidden_alignment`, `attention_alignment` and, where the teacher is
    trained too, `teacher_cross_entropy` and `teacher_distillation_kl`, which the loss of evaluation leaves out.

    Args:
        teacher_model: A model of the same vocabulary, frozen here unless ``args.train_teacher``. It may share weights
            with the student that are not trained (see [`~aag_hf.awakening.share_weights`]). It is not needed if the
            collator has a `teacher_cache`. Without either, the loss is the cross-entropy alone.
        **kwargs: As in [`~transformers.Seq2SeqTrainer`]; `args` is a [`ContextDistillationConfig`], `data_collator` a
            [`~aag_hf.collators.DataCollatorForContextDistillation`].

    Raises:
        InputError: The vocabularies differ, one model would train weights of the other, their states cannot be aligned,
            a batch has no teacher inputs, or the student does not keep packed rows apart (see
            [`~aag_hf.trainers.packing.check_rows_apart`]).

    Example:

    ```python
    trainer = ContextDistillationTrainer(
        model=student,
        teacher_model=teacher,
        args=ContextDistillationConfig("runs/reader", alpha=0.6, temperature=3.0),
        train_dataset=records,
        data_collator=DataCollatorForContextDistillation(
            tokenizer, teacher=ReaderPrompt("passages"), needs_features=True
        ),
    )
    trainer.train()
    ```
    """

    args: ContextDistillationConfig

    def __init__(self, *args: Any, teacher_model: PreTrainedModel | nn.Module | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._keeps_rows_apart = False
        self.teacher: nn.Module | None = None
        if teacher_model is not None:
            self._check_teacher(teacher_model)
            if not self.args.train_teacher:
                teacher_model.requires_grad_(False)
            self.teacher = self._prepared(teacher_model)
            self.teacher.eval()
        elif getattr(self.data_collator, "teacher_cache", None) is not None:
            check_returns_states(self.model, self.args.alignment_weights, "student")
        if self.args.alignment_weights and getattr(self.data_collator, "padding_free", False):
            raise InputError("alignment compares row by row: leave padding_free off.")
        if self.args.train_teacher:
            self.add_callback(TeacherUpdates(self._trainable_teacher()))

    def compute_terms(self, model: nn.Module, inputs: dict[str, Any]) -> Terms:
        teacher_inputs = {n.removeprefix(TEACHER): v for n, v in inputs.items() if n.startswith(TEACHER)}
        student_inputs = {n: v for n, v in inputs.items() if not n.startswith(TEACHER)}
        cached = CachedColumns.of(inputs)
        has_teacher = cached is not None or self.teacher is not None
        states = states_to_return(self.args.alignment_weights) if has_teacher else {}
        self._check_packing(model, student_inputs)
        student = answer_outputs(model, student_inputs | states)
        terms = {"answer_cross_entropy": answer_cross_entropy(student.logits, student.labels)}
        temperature = self.args.temperature_at(self.state.global_step) if model.training else self.args.temperature
        if cached is not None:
            terms |= self._cached_terms(student, student_inputs, cached, temperature)
        elif has_teacher:
            terms |= self._teacher_terms(model.training, student, student_inputs, teacher_inputs, temperature)
        weights = self._weights(model.training) if has_teacher else {"answer_cross_entropy": 1.0}
        return Terms(student, terms, weights)

    def _check_packing(self, model: nn.Module, inputs: dict[str, Any]) -> None:
        """Check the model once, with a batch of which every process has as many rows."""
        batches_are_equal = model.training or self.accelerator.num_processes == 1
        if not self._keeps_rows_apart and batches_are_equal and len(inputs.get(PACKED, ())) > 2:
            check_rows_apart(model, inputs)
            self._keeps_rows_apart = True

    def hyperparameter_search(self, *args: Any, **kwargs: Any) -> BestRun | list[BestRun]:
        if self.args.train_teacher:
            raise InputError(
                "a search makes a new student for each trial, and would go on with the teacher that the trial before "
                "trained: leave train_teacher off."
            )
        return super().hyperparameter_search(*args, **kwargs)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        optimizer = super().create_optimizer(model)
        if self.args.train_teacher:
            teacher = self._trainable_teacher()
            decayed = self.get_decay_parameter_names(teacher)
            add_parameters(optimizer, teacher, decayed, self.args.teacher_learning_rate, self.args.weight_decay)
        return optimizer

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if self.args.train_teacher and self.args.should_save:
            folder = Path(output_dir or self.args.output_dir) / TEACHER_FOLDER
            self.accelerator.unwrap_model(self.teacher).save_pretrained(folder)
        super().save_model(output_dir, _internal_call)

    def _weights(self, training: bool) -> dict[str, float]:
        """The weight of each term that needs a teacher. Evaluation measures the student alone."""
        beta = self.args.teacher_beta
        return {
            "answer_cross_entropy": self.args.alpha,
            "distillation_kl": 1.0 - self.args.alpha,
            **self.args.alignment_weights,
            "teacher_cross_entropy": 1.0 - beta if training else 0.0,
            "teacher_distillation_kl": beta if training else 0.0,
        }

    def _cached_terms(
        self, student: AnswerOutputs, student_inputs: dict[str, Any], cached: CachedColumns, temperature: float
    ) -> dict[str, Tensor]:
        """The terms with a weight that a teacher cache gives."""
        if self.args.train_teacher:
            raise InputError(
                "a teacher cache is a frozen teacher's: leave train_teacher off, or give the collator no cache."
            )
        cached.check_answers(student.labels)
        terms = {}
        if self.args.alpha < 1.0:
            # Before the first step, not hours later.
            cached.check_temperatures(self.args.temperatures(self.state.max_steps))
            terms["distillation_kl"] = cached.distillation_kl(student.logits, temperature)
        if self.args.alignment_weights:
            reading = Reading(student_inputs, student.states)
            alignment = self.args.alignment_weights, self.args.alignment, self.args.layers
            terms |= cached.aligned_terms(reading, *alignment)
        return terms

    def _teacher_terms(
        self,
        training: bool,
        student: AnswerOutputs,
        student_inputs: dict[str, Any],
        teacher_inputs: dict[str, Any],
        temperature: float,
    ) -> dict[str, Tensor]:
        """The terms with a weight that need the teacher. Each has a gradient in one model only."""
        distilled, aligned, taught = self.args.alpha < 1.0, self.args.alignment_weights, self.args.train_teacher
        if not (distilled or aligned or taught):
            return {}
        teacher = self._read_teacher(training, teacher_inputs, student.labels)
        fixed = teacher.detached()
        terms = {}
        if distilled:
            terms["distillation_kl"] = distillation_kl(student.logits, fixed.logits, None, temperature)
        if aligned:
            readings = Reading(student_inputs, student.states), Reading(teacher_inputs, fixed.states)
            terms |= aligned_terms(*readings, aligned, self.args.alignment, self.args.layers)
        if taught:
            terms["teacher_cross_entropy"] = answer_cross_entropy(teacher.logits, teacher.labels)
            terms["teacher_distillation_kl"] = distillation_kl(
                student.logits.detach(), teacher.logits, None, temperature
            )
        return terms

    def _read_teacher(self, training: bool, inputs: dict[str, Any], labels: Tensor) -> AnswerOutputs:
        if not inputs:
            raise InputError("the batch has no teacher inputs: give the collator what the `teacher` reads.")
        assert self.teacher is not None
        if self.args.train_teacher:
            self.teacher.train(training)
        with torch.set_grad_enabled(self.args.train_teacher and torch.is_grad_enabled()):
            teacher = answer_outputs(self.teacher, inputs | states_to_return(self.args.alignment_weights))
        if not torch.equal(labels, teacher.labels):
            raise InputError("student and teacher rows end in different answers: collate both from the same records.")
        return teacher

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._load_teacher(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self._load_teacher(self.state.best_model_checkpoint)

    def _load_teacher(self, checkpoint: str) -> None:
        if not self.args.train_teacher:
            return
        folder = Path(checkpoint) / TEACHER_FOLDER
        if not folder.is_dir():
            raise InputError(f"{folder} is missing: the checkpoint was not made with train_teacher; start a new run.")
        super()._load_from_checkpoint(str(folder), self.accelerator.unwrap_model(self.teacher))

    def _check_teacher(self, teacher: nn.Module) -> None:
        sizes = [model.config.get_text_config().vocab_size for model in (self.model, teacher)]
        if sizes[0] != sizes[1]:
            raise InputError(
                f"the teacher's vocabulary has {sizes[1]} tokens, the student's {sizes[0]}: their distributions can "
                "only be compared over the same tokens."
            )
        check_trained_apart(self.model, teacher, self.args.train_teacher)
        if self.args.alignment_weights:
            check_alignable(self.model, teacher, self.args.alignment_weights, self.args.alignment)

    def _prepared(self, teacher: nn.Module) -> nn.Module:
        if any(hasattr(parameter, "ds_id") for parameter in teacher.parameters()):
            # ZeRO-3 sharded it while it was loaded, so only an engine of its own can gather its weights.
            from trl.models import prepare_deepspeed

            return prepare_deepspeed(teacher, self.accelerator)
        return self.accelerator.prepare_model(teacher, evaluation_mode=not self.args.train_teacher)

    def _trainable_teacher(self) -> nn.Module:
        if self.teacher is None:
            raise InputError("train_teacher is set and there is no teacher_model: give the trainer one.")
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            raise InputError("train_teacher needs both models whole in each process: leave it off with ZeRO and FSDP.")
        return self.teacher
