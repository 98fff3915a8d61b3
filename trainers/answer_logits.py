"""Logits where answers are, and nowhere else."""

import inspect
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers.utils import ModelOutput

IGNORE_INDEX = -100
QUESTION_MASK = "question_mask"


class AnswerOutputs(NamedTuple):
    """What a model says about the answer tokens of a batch.

    Attributes:
        logits: ``(answer tokens, vocab)``, row by row.
        labels: ``(answer tokens,)``, the tokens they predict.
        outputs: All the model returned; of a causal model's logits only those of the last positions.
    """

    logits: torch.Tensor
    labels: torch.Tensor
    outputs: ModelOutput


def answer_outputs(model: nn.Module, inputs: dict[str, Any]) -> AnswerOutputs:
    """Run `model` and pick its logits at the answer tokens.

    A causal model computes its vocabulary projection for the positions from the first answer token of the batch on;
    with targets at the right end of left-padded rows that is a small part of them.

    Args:
        model: A causal or encoder-decoder language model, wrapped or not.
        inputs: Its inputs and `labels` ``(batch, tokens)``, -100 where there is no answer token; a `question_mask`
            is left out.
    """
    inputs = {name: value for name, value in inputs.items() if name != QUESTION_MASK}
    labels = inputs["labels"]
    if is_encoder_decoder(model):
        mask = labels != IGNORE_INDEX
        outputs = model(**inputs)
        return AnswerOutputs(outputs.logits[mask], labels[mask], outputs)
    inputs.pop("labels")
    targets = labels[:, 1:]
    mask = targets != IGNORE_INDEX
    kept = targets.shape[1] - int(mask.any(dim=0).float().argmax())
    if _takes_logits_to_keep(model):
        inputs["logits_to_keep"] = kept + 1
    outputs = model(**inputs)
    logits = outputs.logits[:, -(kept + 1) : -1]
    return AnswerOutputs(logits[mask[:, -kept:]], targets[mask], outputs)


def answer_logits(model: nn.Module, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits ``(answer tokens, vocab)`` and the tokens they predict: see :func:`answer_outputs`."""
    return answer_outputs(model, inputs)[:2]


def is_encoder_decoder(model: nn.Module) -> bool:
    """Whether the model inside all wrappers has an encoder of its own."""
    return bool(innermost(model).config.is_encoder_decoder)


def innermost(model: nn.Module) -> nn.Module:
    """The language model inside all wrappers."""
    while hasattr(model, "module"):
        model = model.module
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _takes_logits_to_keep(model: nn.Module) -> bool:
    return "logits_to_keep" in inspect.signature(innermost(model).forward).parameters
