"""Metrics, the evaluation of readers with controls, and its report."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from aag_hf.evaluation.metrics import best_subspan_em, exact_match, f1_score, has_answer

if TYPE_CHECKING:
    from aag_hf.evaluation.evaluator import ReaderMetrics, evaluate_reader

__all__ = ["exact_match", "f1_score", "best_subspan_em", "has_answer", "evaluate_reader", "ReaderMetrics"]


def __getattr__(name: str) -> Any:
    if name in ("evaluate_reader", "ReaderMetrics"):
        return getattr(import_module("aag_hf.evaluation.evaluator"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
