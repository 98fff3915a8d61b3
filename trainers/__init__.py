"""Trainers of both stages of AAG."""

from aag_hf.trainers.context_distillation import (
    ContextDistillationConfig,
    ContextDistillationTrainer,
    TeacherCache,
    answer_cross_entropy,
    attention_alignment,
    distillation_kl,
    hidden_alignment,
)
from aag_hf.trainers.context_generator import ContextGeneratorConfig, ContextGeneratorTrainer

__all__ = [
    "ContextDistillationConfig",
    "ContextDistillationTrainer",
    "TeacherCache",
    "ContextGeneratorConfig",
    "ContextGeneratorTrainer",
    "answer_cross_entropy",
    "distillation_kl",
    "hidden_alignment",
    "attention_alignment",
]
