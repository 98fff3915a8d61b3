"""Logits at answer tokens, and nowhere else."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers.utils import ModelOutput

from aag_hf.collators.padding import IGNORE_INDEX
from aag_hf.errors import InputError
from aag_hf.hyperlora.layer import HyperLoraLinear

QUESTION_MASK = "question_mask"
# transformers' name for the bounds of packed rows.
PACKED = "cu_seq_lens_q"


class AnswerOutputs(NamedTuple):
    """What a model says about the answer tokens of a batch.

    Attributes:
        logits: ``(answer tokens, vocab)``, row by row.
        labels: ``(answer tokens,)``, the tokens that the logits predict.
        states: The requested hidden states and attentions, by transformers' names. The model's other outputs do not
            stay in memory.
    """

    logits: torch.Tensor
    labels: torch.Tensor
    states: dict[str, tuple[torch.Tensor, ...]]

    def detached(self) -> "AnswerOutputs":
        """The same numbers without gradients."""
        states = {name: tuple(layer.detach() for layer in stack) for name, stack in self.states.items()}
        return AnswerOutputs(self.logits.detach(), self.labels, states)


def answer_outputs(model: nn.Module, inputs: dict[str, Any]) -> AnswerOutputs:
    """Run `model` and pick its logits at the answer tokens.

    A causal model projects only the states of answer tokens to the vocabulary, unless HyperLoRA adapts that projection.

    Args:
        model: A causal or encoder-decoder language model, wrapped or not.
        inputs: The model's inputs and `labels` ``(batch, tokens)``, -100 where there is no answer token. A
            `question_mask` is not passed on. Rows may be packed into one, see [`~aag_hf.collators.padding.pack`].

    Raises:
        InputError: A row or its labels are longer than the model allows.
    """
    inputs = {name: value for name, value in inputs.items() if name != QUESTION_MASK}
    _check_lengths(model, inputs)
    labels = inputs["labels"]
    if is_encoder_decoder(model):
        mask = labels != IGNORE_INDEX
        outputs = model(**inputs)
        return AnswerOutputs(outputs.logits[mask], labels[mask], _states(outputs))
    inputs.pop("labels")
    if PACKED in inputs:
        # With a cache of keys and values, transformers would ignore the bounds of packed rows.
        inputs["use_cache"] = False
    targets = labels[:, 1:]
    mask = targets != IGNORE_INDEX
    with _projected_at(model, F.pad(mask, (0, 1), value=False)):
        outputs = model(**inputs)
    logits = outputs.logits if outputs.logits.dim() == 2 else outputs.logits[:, :-1][mask]
    return AnswerOutputs(logits, targets[mask], _states(outputs))


def answer_logits(model: nn.Module, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits ``(answer tokens, vocab)`` and the tokens they predict: see [`answer_outputs`]."""
    return answer_outputs(model, inputs)[:2]


def is_encoder_decoder(model: nn.Module) -> bool:
    """Whether the model inside all wrappers has an encoder of its own."""
    return bool(innermost(model).config.is_encoder_decoder)


def innermost(model: nn.Module) -> nn.Module:
    """The language model inside all wrappers."""
    while hasattr(model, "module"):
        model = model.module
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _check_lengths(model: nn.Module, inputs: dict[str, Any]) -> None:
    # Rotary models would read positions that they never saw in training. Other models fail deep inside.
    limit = getattr(innermost(model).config.get_text_config(), "max_position_embeddings", None)
    for name in ("input_ids", "labels"):
        length = inputs.get("max_length_q", inputs[name].shape[-1]) if name in inputs else 0
        if limit is not None and length > limit:
            raise InputError(
                f"{name} is {length} tokens long and the model has {limit} positions: lower the collator's max_length "
                "or the length of answers."
            )


def _states(outputs: ModelOutput) -> dict[str, tuple[torch.Tensor, ...]]:
    return {name: value for name, value in outputs.items() if name.endswith(("hidden_states", "attentions"))}


@contextmanager
def _projected_at(model: nn.Module, mask: torch.Tensor) -> Iterator[None]:
    """Give the model's head only the states at which `mask` ``(batch, tokens)`` is true, as ``(answer tokens, d)``.

    A product of the head with a slice of the states, which is not contiguous, would copy the vocabulary's weights once
    per row of the batch. A matrix of rows avoids that. A head that HyperLoRA adapts sees all states, since it finds a
    row's adapter by the row's place.
    """

    def keep_masked(_: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        states, *others = args
        return (states[mask], *others) if states.shape[:2] == mask.shape else None

    head = innermost(model).get_output_embeddings()
    if head is None or any(isinstance(module, HyperLoraLinear) for module in head.modules()):
        yield
        return
    handle = head.register_forward_pre_hook(keep_masked)
    try:
        yield
    finally:
        handle.remove()
