"""Logits where answers are, and nowhere else."""

import inspect
from typing import Any

import torch
from torch import nn

IGNORE_INDEX = -100


def answer_logits(model: nn.Module, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Run `model` and return its logits at the answer tokens.

    A causal model computes its vocabulary projection for the positions from the first answer token of the batch on;
    with targets at the right end of left-padded rows that is a small part of them.

    Args:
        model: A causal or encoder-decoder language model, wrapped or not.
        inputs: Its inputs and `labels` ``(batch, tokens)``, -100 where there is no answer token.

    Returns:
        Logits ``(answer tokens, vocab)`` and the tokens they predict ``(answer tokens,)``, row by row.
    """
    inputs = dict(inputs)
    labels = inputs["labels"]
    if is_encoder_decoder(model):
        mask = labels != IGNORE_INDEX
        return model(**inputs).logits[mask], labels[mask]
    inputs.pop("labels")
    targets = labels[:, 1:]
    mask = targets != IGNORE_INDEX
    kept = targets.shape[1] - int(mask.any(dim=0).float().argmax())
    if _takes_logits_to_keep(model):
        inputs["logits_to_keep"] = kept + 1
    logits = model(**inputs).logits[:, -(kept + 1) : -1]
    return logits[mask[:, -kept:]], targets[mask]


def is_encoder_decoder(model: nn.Module) -> bool:
    """Whether the model inside all wrappers has an encoder of its own."""
    return bool(_innermost(model).config.is_encoder_decoder)


def _innermost(model: nn.Module) -> nn.Module:
    while hasattr(model, "module"):
        model = model.module
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _takes_logits_to_keep(model: nn.Module) -> bool:
    return "logits_to_keep" in inspect.signature(_innermost(model).forward).parameters
