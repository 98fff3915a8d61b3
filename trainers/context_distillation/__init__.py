"""Stage 2: a reader is distilled from a teacher that reads long context."""

from aag_hf.trainers.context_distillation.config import ContextDistillationConfig
from aag_hf.trainers.context_distillation.losses import (
    answer_cross_entropy,
    attention_alignment,
    distillation_kl,
    hidden_alignment,
)
from aag_hf.trainers.context_distillation.teacher_cache import TeacherCache
from aag_hf.trainers.context_distillation.trainer import ContextDistillationTrainer

__all__ = [
    "ContextDistillationConfig",
    "ContextDistillationTrainer",
    "TeacherCache",
    "answer_cross_entropy",
    "distillation_kl",
    "hidden_alignment",
    "attention_alignment",
]
