"""Losses of long-context distillation: pure functions of tensors and masks.

Student and teacher read different inputs about one question and predict the same answer tokens (Liao et al., COLING
2025, section 3.3). Every function

- takes masks that are true where a token counts, and averages over exactly those tokens;
- is differentiable in student and teacher alike, so detach a frozen teacher's tensors, or compute them without grad;
- returns a finite scalar, which is zero with zero gradients if nothing is unmasked;
- computes half-precision inputs in float32, and converts only the unmasked rows.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from aag_hf.collators.padding import IGNORE_INDEX
from aag_hf.errors import InputError

ANNEALING_STEPS = 500


def answer_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the gold answer tokens, ``CE(y, S)`` of the paper.

    Args:
        logits: ``(batch, tokens, vocab)`` or, already gathered, ``(answer tokens, vocab)``. ``logits[i]`` predicts
            ``labels[i]``; nothing is shifted here.
        labels: ``(batch, tokens)`` or ``(answer tokens,)``; -100 marks what is not an answer token.

    Returns:
        A scalar of at least float32, in nats; 0 with zero gradients if there is no answer token.

    Raises:
        InputError: The leading shapes of logits and labels differ.
    """
    _require_shape("labels", labels, logits.shape[:-1])
    keep = labels != IGNORE_INDEX
    rows = _at_least_float32(logits[keep])
    return F.cross_entropy(rows, labels[keep], reduction="sum") / max(rows.shape[0], 1)


def distillation_kl(student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None, temperature: float) -> Tensor:
    """``T² · KL(teacher ‖ student)`` at temperature T, averaged over the unmasked answer tokens.

    The paper writes the term as ``CE(T, S)``. It differs by the teacher's entropy, which gives the student no gradient.
    T² keeps the gradient's size independent of T (Hinton et al., 2015). Tokens that the teacher rules out with a logit
    of -inf add nothing.

    Args:
        student_logits: ``(batch, tokens, vocab)`` or, already gathered, ``(answer tokens, vocab)``.
        teacher_logits: The same shape.
        mask: ``(batch, tokens)`` or ``(answer tokens,)``, true at answer tokens; ``None`` if every row is one.
        temperature: The temperature, above 0.

    Returns:
        A scalar of at least float32, in nats times T²; 0 with zero gradients if nothing is unmasked. It is
        differentiable in both models: detach a frozen teacher's logits.

    Raises:
        InputError: Shapes differ (a teacher of another vocabulary, a mask of other tokens), or the temperature is not
            above 0.
    """
    if student_logits.shape != teacher_logits.shape:
        raise InputError(
            f"student logits are {tuple(student_logits.shape)}, teacher logits {tuple(teacher_logits.shape)}: "
            "gather the same answer tokens of both, and use a teacher with the student's vocabulary."
        )
    _require_positive(temperature)
    student = _tempered(_rows(student_logits, mask), temperature).log_softmax(-1)
    teacher = _tempered(_rows(teacher_logits, mask), temperature).log_softmax(-1)
    return temperature**2 * _kl(teacher, student)


class TopKRecord(NamedTuple):
    """The part of a teacher's logits z that a teacher cache keeps, see [`topk_record`].

    Attributes:
        top_values: ``(..., k)`` the k largest raw logits: neither normalised nor divided by a temperature.
        top_indices: ``(..., k)`` int64, their tokens.
        tail_logsumexp: ``(..., temperatures)`` float32, ``log Σ exp(z / T)`` over all other tokens; -inf if there is
            none.
    """

    top_values: Tensor
    top_indices: Tensor
    tail_logsumexp: Tensor


@torch.no_grad()
def topk_record(logits: Tensor, k: int, temperatures: Sequence[float]) -> TopKRecord:
    """Reduce logits to their k largest and the weight of the rest at each temperature that training will use.

    The weight of the tail at one temperature says nothing about it at another, so a record serves the listed
    temperatures only. A schedule has few, since [`annealed_temperature`] changes every 500 steps.

    Args:
        logits: ``(..., vocab)``.
        k: 1 ≤ k ≤ vocab.
        temperatures: Each is above 0. They become the last axis of ``tail_logsumexp``.

    Raises:
        InputError: k does not fit the vocabulary, or a temperature is not above 0.
    """
    if not 1 <= k <= logits.shape[-1]:
        raise InputError(f"k is {k}: keep between 1 and {logits.shape[-1]} (the vocabulary) of the teacher's logits.")
    for temperature in temperatures:
        _require_positive(temperature)
    top_values, top_indices = logits.topk(k, dim=-1)
    tail = _at_least_float32(logits).scatter(-1, top_indices, -torch.inf)
    return TopKRecord(top_values, top_indices, torch.stack([(tail / t).logsumexp(-1) for t in temperatures], dim=-1))


def topk_distillation_kl(
    student_logits: Tensor,
    top_values: Tensor,
    top_indices: Tensor,
    tail_logsumexp: Tensor,
    mask: Tensor | None,
    temperature: float,
) -> Tensor:
    """[`distillation_kl`] from a teacher's [`TopKRecord`], exact over the partition {k tokens, tail}.

    The k tokens are compared one by one, and all others as one event. Merging events can only lower a KL divergence, so
    this is a lower bound of the full one, and equals it at k = vocab. (Renormalising the k tokens instead would
    leave the student free to put any mass on the tail.)

    Args:
        student_logits: ``(batch, tokens, vocab)`` or ``(answer tokens, vocab)``.
        top_values, top_indices: ``(batch, tokens, k)`` or ``(answer tokens, k)``, of the record.
        tail_logsumexp: ``(batch, tokens)`` or ``(answer tokens,)``, the record's column **of this temperature**.
        mask: ``(batch, tokens)`` or ``(answer tokens,)``, true at answer tokens; ``None`` if every row is one.
        temperature: The temperature of ``tail_logsumexp``.

    Raises:
        InputError: The shapes do not belong together, or the temperature is not above 0.
    """
    _require_positive(temperature)
    _require_shape("top_values", top_values, (*student_logits.shape[:-1], top_indices.shape[-1]))
    _require_shape("top_indices", top_indices, top_values.shape)
    _require_shape("tail_logsumexp", tail_logsumexp, student_logits.shape[:-1])
    indices = _rows(top_indices, mask)
    teacher_top = _tempered(_rows(top_values, mask), temperature)
    teacher_tail = tail_logsumexp[mask.bool()] if mask is not None else tail_logsumexp.flatten()
    teacher = torch.cat([teacher_top, teacher_tail.to(teacher_top.dtype).unsqueeze(-1)], -1).log_softmax(-1)

    student = _tempered(_rows(student_logits, mask), temperature).log_softmax(-1)
    student_tail = student.scatter(-1, indices, -torch.inf).logsumexp(-1, keepdim=True)
    student = torch.cat([student.gather(-1, indices), student_tail], -1)
    return temperature**2 * _kl(teacher, student)


def hidden_alignment(
    student_states: Sequence[Tensor],
    teacher_states: Sequence[Tensor],
    mask: Tensor | None = None,
    teacher_mask: Tensor | None = None,
) -> Tensor:
    """``1 - cos(H_S, H_T)``, averaged over the unmasked tokens and over the layers.

    Rows are sample-major. If the teacher has P rows per sample (its passages), its row i is compared with the student's
    row ``i // P``. A zero vector has cosine 0 with everything and receives no gradient.

    Args:
        student_states: One ``(batch, tokens, dim)`` tensor per layer, as in a model's ``hidden_states``.
        teacher_states: One ``(batch · P, tokens, dim)`` tensor for each of the same layers.
        mask: ``(batch, tokens)``, true where the student's token counts.
        teacher_mask: ``(batch · P, tokens)``, true where the teacher's token counts; both must.

    Returns:
        A scalar of at least float32, 0 with zero gradients if nothing is unmasked. It is differentiable in both models:
        detach a frozen teacher's tensors.

    Raises:
        InputError: Numbers of layers, rows, tokens or dimensions do not match.
    """
    _require_pairs(student_states, teacher_states, "hidden states")
    keep = _paired_mask(student_states[0].shape[1], student_states[0], teacher_states[0], mask, teacher_mask)
    sample, passage, token = keep.nonzero(as_tuple=True)
    total = student_states[0].new_zeros((), dtype=_accumulation_dtype(student_states[0]))
    for student, teacher in zip(student_states, teacher_states):
        teacher = teacher.unflatten(0, keep.shape[:2])[sample, passage, token]
        total = total + (1 - _cosine(student[sample, token], teacher)).sum()
    return total / max(len(student_states) * sample.numel(), 1)


def attention_alignment(
    student_attentions: Sequence[Tensor],
    teacher_attentions: Sequence[Tensor],
    mask: Tensor | None = None,
    teacher_mask: Tensor | None = None,
) -> Tensor:
    """``MSE(A_S, A_T)`` of attention probabilities, averaged over unmasked (query, key) pairs, heads and layers.

    The probabilities are compared as the models return them, after the softmax. Rows match as in
    [`hidden_alignment`].

    Args:
        student_attentions: One ``(batch, heads, tokens, tokens)`` tensor per layer, as in a model's ``attentions``.
        teacher_attentions: One ``(batch · P, heads, tokens, tokens)`` tensor for each of the same layers.
        mask: ``(batch, tokens)``, true where the student's token counts, as query and as key.
        teacher_mask: ``(batch · P, tokens)``, true where the teacher's token counts; both must.

    Returns:
        A scalar of at least float32, 0 with zero gradients if nothing is unmasked. It is differentiable in both models:
        detach a frozen teacher's tensors.

    Raises:
        InputError: Numbers of layers, rows, heads or tokens do not match.
    """
    _require_pairs(student_attentions, teacher_attentions, "attentions")
    first = student_attentions[0]
    keep = _paired_mask(first.shape[-1], first, teacher_attentions[0], mask, teacher_mask)
    sample, passage, query = keep.nonzero(as_tuple=True)
    keys = keep[sample, passage].unsqueeze(1)
    total = first.new_zeros((), dtype=_accumulation_dtype(first))
    for student, teacher in zip(student_attentions, teacher_attentions):
        teacher = _at_least_float32(teacher.unflatten(0, keep.shape[:2])[sample, passage, :, query])
        difference = _at_least_float32(student[sample, :, query]) - teacher
        total = total + difference.masked_fill(~keys, 0).square().sum()
    return total / max(len(student_attentions) * first.shape[1] * int(keys.sum()), 1)


def annealed_temperature(temperature: float, step: int) -> float:
    """The reference's schedule: ``temperature / (1 + ln(step // 500 + 1))``."""
    return temperature / (1 + math.log(step // ANNEALING_STEPS + 1))


def _kl(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean over rows of KL(teacher ‖ student), both (rows, events) log-probabilities."""
    # where() before the product: 0 · (-inf - x) would be NaN at events the teacher rules out.
    log_ratio = torch.where(teacher > -torch.inf, teacher - student, 0)
    return (teacher.exp() * log_ratio).sum() / max(teacher.shape[0], 1)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    a, b = _at_least_float32(a), _at_least_float32(b)
    scale = a.square().sum(-1) * b.square().sum(-1)
    # The derivative is 1/|a|: below this length a direction is noise and its gradient would drown all others.
    defined = scale > 1e-12
    return torch.where(defined, (a * b).sum(-1) * torch.where(defined, scale, 1).rsqrt(), 0)


def _rows(values: Tensor, mask: Tensor | None) -> Tensor:
    """The (unmasked tokens, last axis) rows of ``values``."""
    if mask is None:
        return values.flatten(0, -2)
    _require_shape("mask", mask, values.shape[:-1])
    return values[mask.bool()]


def _tempered(logits: Tensor, temperature: float) -> Tensor:
    return _at_least_float32(logits) / temperature


def _accumulation_dtype(values: Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(_accumulation_dtype(values))


def _paired_mask(
    tokens: int, student: Tensor, teacher: Tensor, mask: Tensor | None, teacher_mask: Tensor | None
) -> Tensor:
    """(batch, passages, tokens): true where a student's token and its teacher's both count."""
    batch, teacher_rows = student.shape[0], teacher.shape[0]
    keep = torch.ones(batch, teacher_rows // max(batch, 1), tokens, dtype=torch.bool, device=student.device)
    if mask is not None:
        _require_shape("mask", mask, (batch, tokens))
        keep = keep & mask.bool().unsqueeze(1)
    if teacher_mask is not None:
        _require_shape("teacher_mask", teacher_mask, (teacher_rows, tokens))
        keep = keep & teacher_mask.bool().unflatten(0, keep.shape[:2])
    return keep


def _require_pairs(student: Sequence[Tensor], teacher: Sequence[Tensor], what: str) -> None:
    if len(student) != len(teacher) or not len(student):
        raise InputError(
            f"{what} of {len(student)} student and {len(teacher)} teacher layers: align equally many, as "
            "layers='select' does."
        )
    for ours, theirs in zip(student, teacher):
        if ours.shape[1:] != theirs.shape[1:] or theirs.shape[0] % max(ours.shape[0], 1):
            raise InputError(
                f"{what} are {tuple(ours.shape)} in the student, {tuple(theirs.shape)} in the teacher: "
                "all but the first axis must agree, and the teacher's rows must be a multiple of the student's."
            )


def _require_shape(name: str, values: Tensor, expected: Sequence[int]) -> None:
    if tuple(values.shape) != tuple(expected):
        raise InputError(f"{name} is {tuple(values.shape)}, expected {tuple(expected)} to match the student's tokens.")


def _require_positive(temperature: float) -> None:
    if not temperature > 0:
        raise InputError(f"temperature is {temperature}: it must be above 0.")
