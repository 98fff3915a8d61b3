"""The terms of the loss, from the teacher's answers in a [`TeacherCache`]."""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from aag_hf.errors import InputError
from aag_hf.trainers.context_distillation.aligned_terms import Reading, shared_terms
from aag_hf.trainers.context_distillation.alignment import Alignment, Layers
from aag_hf.trainers.context_distillation.cached_states import PLACES, cached_tokens
from aag_hf.trainers.context_distillation.losses import distillation_kl, topk_distillation_kl

Columns = dict[str, Any]


def is_cached(columns: Columns) -> bool:
    """Whether a batch's teacher columns, without their prefix, come from a cache and are not a teacher's inputs."""
    return "logits" in columns or "top_values" in columns


def check_answers(labels: Tensor, columns: Columns) -> None:
    """Refuse a batch whose answers are not those that the teacher predicted.

    Args:
        labels: The student's answer tokens, ``(answer tokens,)``.
        columns: What [`TeacherCache.collate`] gave, names without ``teacher_``.

    Raises:
        InputError: The answers differ.
    """
    if not torch.equal(labels, columns["labels"]):
        raise InputError("the student's answers are not the cached teacher's: build the cache from these records.")


def cached_distillation_kl(logits: Tensor, columns: Columns, temperature: float) -> Tensor:
    """:func:`~.losses.distillation_kl` from cached columns; with `top_k`, exact over {k tokens, all others}.

    Args:
        logits: The student's logits, ``(answer tokens, vocab)``.
        columns: What [`TeacherCache.collate`] gave, names without ``teacher_``.
        temperature: The softmax temperature. With `top_k` it is one of the cache's temperatures.

    Raises:
        InputError: The temperature or the vocabulary is not the cache's.
    """
    if "logits" in columns:
        return distillation_kl(logits, columns["logits"], None, temperature)
    check_temperatures(columns, [temperature])
    if columns["vocabulary"] != logits.shape[-1]:
        raise InputError(
            f"the cached teacher's vocabulary has {columns['vocabulary']} tokens, the student's {logits.shape[-1]}: "
            "their distributions can only be compared over the same tokens."
        )
    tail = columns["tail_logsumexp"][:, columns["temperatures"].index(temperature)]
    return topk_distillation_kl(logits, columns["top_values"], columns["top_indices"], tail, None, temperature)


def cached_alignment(
    student: Reading, columns: Columns, names: Collection[str], alignment: Alignment, layers: Layers
) -> dict[str, Tensor]:
    """:func:`~.aligned_terms.aligned_terms` from cached columns.

    Args:
        student: The student's reading.
        columns: What [`TeacherCache.collate`] gave, names without ``teacher_``.
        names: The alignment terms.
        alignment: ``"question"``.
        layers: The layers that the cache was built for.

    Raises:
        InputError: The cache does not hold these states.
    """
    if alignment == "position":
        raise InputError(
            "alignment 'position' reads every token of the teacher's, which a cache does not keep: choose 'question', "
            "or give the trainer the teacher_model and the collator no cache."
        )
    missing = [name for name in names if f"{PLACES[0]}_{name}" not in columns]
    if missing or columns["layers"] != layers:
        kept = f"those of layers {columns['layers']!r}" if not missing else f"none for {missing[0]}"
        raise InputError(
            f"the run aligns states of layers {layers!r}, of which the teacher cache holds {kept}: build another cache "
            "with aligned and layers as in the run, or set hidden_weight and attention_weight to 0."
        )
    return shared_terms(student, cached_tokens(columns, names), layers)


def check_temperatures(columns: Columns, temperatures: Sequence[float]) -> None:
    """Refuse a cache that does not serve all `temperatures`.

    Args:
        columns: What [`TeacherCache.collate`] gave, names without ``teacher_``.
        temperatures: All temperatures of a run.

    Raises:
        InputError: Some logits were left out, and their weight at one of the temperatures is not known.
    """
    missing = [t for t in temperatures if t not in columns.get("temperatures", temperatures)]
    if missing:
        raise InputError(
            f"the run's temperature is {missing[0]}, the teacher cache was made for {columns['temperatures']}: build "
            "another cache for all that ContextDistillationConfig.temperatures gives; one with top_k=None serves any."
        )
