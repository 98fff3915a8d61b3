"""The alignment terms of the loss: the tokens of student and teacher that are compared, and the comparison."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from aag_hf.collators.padding import IGNORE_INDEX
from aag_hf.errors import InputError
from aag_hf.trainers.answer_logits import QUESTION_MASK, innermost, is_encoder_decoder
from aag_hf.trainers.context_distillation.losses import attention_alignment, hidden_alignment

Alignment = Literal["question", "position"]
Layers = Literal["all", "select"]
HIDDEN, ATTENTION = "hidden_alignment", "attention_alignment"


class Reading(NamedTuple):
    """The inputs of a model, and its states.

    Attributes:
        inputs: The model's inputs, with `labels` and, to align questions, `question_mask`.
        states: The model's hidden states, attentions or both, by transformers' names.
    """

    inputs: dict[str, Any]
    states: dict[str, tuple[Tensor, ...]]


class Tokens(NamedTuple):
    """Tokens to compare.

    Attributes:
        layers: ``(rows, tokens, dim)`` or ``(rows, heads, tokens, tokens)`` per layer.
        mask: ``(rows, tokens)``, true where a token counts.
    """

    layers: list[Tensor]
    mask: Tensor


class Compared(NamedTuple):
    """What a term compares: an output of the models, the token axes of that output, and the loss."""

    output: str
    axes: tuple[int, ...]
    loss: Callable[[list[Tensor], list[Tensor], Tensor, Tensor], Tensor]


TERMS = {
    HIDDEN: Compared("hidden_states", (1,), hidden_alignment),
    ATTENTION: Compared("attentions", (2, 3), attention_alignment),
}


def aligned_terms(
    student: Reading,
    teacher: Reading,
    names: Collection[str],
    alignment: Alignment = "question",
    layers: Layers = "all",
) -> dict[str, Tensor]:
    """The paper's ``L_hid`` and ``L_attn`` (section 3.3), over tokens that student and teacher share.

    Each is the sum of its mean over answer positions and, with an encoder, its mean over the encoder's tokens:

    - ``"question"``: the tokens of the question, averaged over each model's passages;
    - ``"position"``: as in the paper, a token of the student with the teacher's token at the same place, whatever it
      is, unless one of them is padding. A single passage is compared with each of the teacher's, several are compared
      one by one.

    A causal model has only answer positions, which are the states that predict the answer tokens.

    Args:
        student: The student's reading. Its states are hidden states, attentions or both, as `names` need.
        teacher: The teacher's reading. The teacher may read more passages, and be deeper if `layers` is ``"select"``.
        names: Some of ``"hidden_alignment"``, ``"attention_alignment"``.
        alignment: Which tokens of the encoder.
        layers: Which layers, see [`selected_layers`]. The embeddings are the first of the hidden states.

    Returns:
        Finite scalars by name. They are 0 with zero gradients if no token is shared.

    Raises:
        InputError: Layers, widths or heads differ, or a question mask is missing.
    """
    if alignment == "question":
        return shared_terms(student, {name: shared_tokens(teacher, name, layers) for name in names}, layers)
    terms = {}
    for name in names:
        pairs = _same_positions(student, teacher, TERMS[name], layers)
        terms[name] = torch.stack([_compare(TERMS[name], ours, theirs) for ours, theirs in pairs]).sum()
    return terms


def shared_terms(
    student: Reading, teacher: Mapping[str, Mapping[str, Tokens]], layers: Layers = "all"
) -> dict[str, Tensor]:
    """[`aligned_terms`] with alignment ``"question"``, from stored states of the teacher.

    Args:
        student: As there.
        teacher: The result of [`shared_tokens`] per term, by name.
        layers: The layers of that result.
    """
    terms = {}
    for name, theirs in teacher.items():
        ours = shared_tokens(student, name, layers)
        terms[name] = torch.stack([_compare(TERMS[name], ours[place], theirs[place]) for place in theirs]).sum()
    return terms


def shared_tokens(reading: Reading, name: str, layers: Layers = "all") -> dict[str, Tokens]:
    """The tokens that all models read about a question: its ``"answer"`` and, with an encoder, the ``"question"``.

    Args:
        reading: The reading of one model.
        name: The name of the term, which tells whether hidden states or attentions are compared.
        layers: Which layers.

    Returns:
        Tokens by place, one row per sample, with those that count before those that do not.

    Raises:
        InputError: A question mask is missing.
    """
    compared = TERMS[name]
    tokens = {"answer": _answer_tokens(reading, compared, layers)}
    if _has_encoder(reading):
        tokens["question"] = _question_tokens(reading, compared, layers)
    return tokens


def check_alignable(student: nn.Module, teacher: nn.Module, names: Collection[str], alignment: Alignment) -> None:
    """Refuse models whose states cannot be aligned, before any batch is read.

    Raises:
        InputError: Only one model has an encoder, positions are compared without an encoder, or a model does not return
            the attentions to compare.
    """
    has_encoder = is_encoder_decoder(student)
    if has_encoder != is_encoder_decoder(teacher):
        raise InputError(
            "hidden_weight and attention_weight align a causal student with a causal teacher, or both with encoders: "
            "set them to 0, or choose another teacher."
        )
    if alignment == "position" and not has_encoder:
        raise InputError("alignment 'position' compares encoders, and a causal model has none: choose 'question'.")
    check_returns_states(student, names, "student")
    check_returns_states(teacher, names, "teacher")


def check_returns_states(model: nn.Module, names: Collection[str], role: str) -> None:
    """Refuse a model that does not return the states that the terms `names` read.

    Raises:
        InputError: Attentions are read, but the model's implementation does not form them; the message names the
            `role`.
    """
    implementation = innermost(model).config._attn_implementation
    if ATTENTION in names and implementation != "eager":
        raise InputError(
            f"attention_weight reads attention probabilities, which the {role}'s {implementation!r} attention never "
            "forms: load it with attn_implementation='eager', which is slower and keeps (heads, tokens, tokens) "
            "numbers a layer and passage in memory; or set attention_weight to 0."
        )


def states_to_return(names: Collection[str]) -> dict[str, bool]:
    """The arguments that make a model return the states that the terms `names` read."""
    return {"output_hidden_states": HIDDEN in names, "output_attentions": ATTENTION in names} if names else {}


def _same_positions(
    student: Reading, teacher: Reading, compared: Compared, layers: Layers
) -> Iterator[tuple[Tokens, Tokens]]:
    """Pairs of tokens to compare. The second has a multiple of the first's rows, sample-major."""
    yield _answer_tokens(student, compared, layers), _answer_tokens(teacher, compared, layers)
    ours, theirs = _passages(student), _passages(teacher)
    common = min(ours, theirs)
    yield (
        _encoder_positions(student, compared, layers, common),
        _encoder_positions(teacher, compared, layers, theirs if ours == 1 else common),
    )


def _answer_tokens(reading: Reading, compared: Compared, layers: Layers) -> Tokens:
    """The positions that predict the answer tokens."""
    answers, prefix = reading.inputs["labels"] != IGNORE_INDEX, "decoder_"
    if not _has_encoder(reading):
        # A causal model's state predicts the token after it.
        answers, prefix = answers.roll(-1, dims=1), ""
        answers[:, -1] = False
    return _gather(_layers(reading, prefix, compared, layers), answers, compared.axes)


def _question_tokens(reading: Reading, compared: Compared, layers: Layers) -> Tokens:
    """The tokens of the question in the encoder, averaged over the passages of a sample."""
    if QUESTION_MASK not in reading.inputs:
        raise InputError("the batch does not say where questions stand: give the collator question_mask=True.")
    question = reading.inputs[QUESTION_MASK].flatten(0, -2)
    gathered, mask = _gather(_layers(reading, "encoder_", compared, layers), question, compared.axes)
    batch, present = len(reading.inputs["labels"]), mask.any(-1)
    averaged = [average_passages(values, present, batch) for values in gathered]
    return Tokens(averaged, mask.unflatten(0, (batch, -1)).any(1))


def _encoder_positions(reading: Reading, compared: Compared, layers: Layers, passages: int) -> Tokens:
    """The encoder's tokens without padding, at their places, in the first passages of each sample."""
    sample_major = (len(reading.inputs["labels"]), -1)

    def first(rows: Tensor) -> Tensor:
        return rows.unflatten(0, sample_major)[:, :passages].flatten(0, 1)

    tokens = reading.inputs["attention_mask"].flatten(0, -2).bool()
    return Tokens([first(values) for values in _layers(reading, "encoder_", compared, layers)], first(tokens))


def _passages(reading: Reading) -> int:
    mask = reading.inputs["attention_mask"]
    return mask.shape[1] if mask.dim() == 3 else 1


def _has_encoder(reading: Reading) -> bool:
    return any(name.startswith("encoder_") for name in reading.states)


def _layers(reading: Reading, prefix: str, compared: Compared, layers: Layers) -> list[Tensor]:
    stack = reading.states[prefix + compared.output]
    return [stack[i] for i in selected_layers(len(stack), layers)]


def _gather(layers: list[Tensor], mask: Tensor, axes: tuple[int, ...]) -> Tokens:
    for axis in axes:
        layers = [gather_tokens(values, mask, axis)[0] for values in layers]
    return Tokens(layers, gather_tokens(mask, mask)[1])


def _compare(compared: Compared, student: Tokens, teacher: Tokens) -> Tensor:
    """The loss over the places that both models have."""
    common = min(student.mask.shape[1], teacher.mask.shape[1])

    def cut(layers: list[Tensor]) -> list[Tensor]:
        for axis in compared.axes:
            layers = [values.narrow(axis, 0, common) for values in layers]
        return layers

    return compared.loss(cut(student.layers), cut(teacher.layers), student.mask[:, :common], teacher.mask[:, :common])


def selected_layers(num_layers: int, layers: Layers) -> list[int]:
    """Which of ``num_layers`` to align: ``"all"``, or ``"select"`` for the first, the middle and the last one.

    Raises:
        InputError: `layers` is neither of them.
    """
    if layers == "all":
        return list(range(num_layers))
    if layers == "select":
        return sorted({0, num_layers // 2, num_layers - 1})
    raise InputError(f"layers is {layers!r}: choose 'all' or 'select'.")


def gather_tokens(values: Tensor, mask: Tensor, dim: int = 1) -> tuple[Tensor, Tensor]:
    """Move each row's unmasked tokens to the front and cut the rest off.

    This brings the question tokens of student and teacher side by side, though their positions differ. Attentions are
    gathered along both token axes.

    Args:
        values: ``(rows, …)`` with ``tokens`` at axis ``dim``.
        mask: ``(rows, tokens)``, true at the tokens to keep.

    Returns:
        ``values`` with ``kept`` at axis ``dim``, the largest count of any row, and its (rows, kept) mask.
    """
    kept = int(mask.sum(-1).max()) if mask.numel() else 0
    order = mask.long().argsort(dim=-1, descending=True, stable=True)[:, :kept]
    gathered = values.movedim(dim, 1)[torch.arange(len(order), device=order.device).unsqueeze(1), order]
    return gathered.movedim(1, dim), mask.gather(1, order).bool()


def average_passages(values: Tensor, present: Tensor, batch: int) -> Tensor:
    """Mean of a teacher's sample-major (batch · passages, …) rows over the passages of each sample.

    Args:
        values: Hidden states or attentions of gathered question tokens.
        present: ``(batch · passages,)``, false at padding passages, which do not count.
        batch: The number of samples.

    Returns:
        ``(batch, …)``; zeros for a sample without any passage.
    """
    weight = present.unflatten(0, (batch, -1)).to(torch.promote_types(values.dtype, torch.float32))
    weight = weight / weight.sum(-1, keepdim=True).clamp_min(1)
    return torch.einsum("bp,bp...->b...", weight, values.to(weight.dtype).unflatten(0, (batch, -1)))
