"""Stage 1: the context generator."""

from aag_hf.trainers.context_generator.config import ContextGeneratorConfig
from aag_hf.trainers.context_generator.trainer import ContextGeneratorTrainer

__all__ = ["ContextGeneratorConfig", "ContextGeneratorTrainer"]
