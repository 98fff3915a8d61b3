"""How likely given texts are to a model, as answers to prompts."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from aag_hf.collators import DataCollatorForContextDistillation
from aag_hf.hyperlora import DocumentMemory
from aag_hf.trainers.answer_logits import answer_logits


@torch.no_grad()
def target_log_probs(
    model: nn.Module,
    collator: DataCollatorForContextDistillation,
    records: Sequence[dict[str, Any]],
    batch_size: int = 32,
    memory: DocumentMemory | None = None,
) -> list[float]:
    """The log-probability of each record's target with the token that ends it, which is the sum over its tokens.

    Args:
        model: A causal or encoder-decoder model, wrapped or not.
        collator: Makes prompts and targets.
        records: Records of the data contract.
        batch_size: Records per forward pass.
        memory: One memory per record, for an adapter that is made from documents.
    """
    device = next(model.parameters()).device
    order = sorted(range(len(records)), key=lambda i: len(records[i].get("generated_context") or ""))
    totals = [0.0] * len(records)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        inputs = {name: tensor.to(device) for name, tensor in collator([records[i] for i in rows]).items()}
        lengths = (inputs["labels"] >= 0).sum(1).tolist()
        inputs |= {} if memory is None else {"memory": memory[rows].to(device)}
        logits, labels = answer_logits(model, inputs)
        log_probs = logits.float().log_softmax(-1).gather(1, labels[:, None])[:, 0]
        for row, own in zip(rows, log_probs.split(lengths)):
            totals[row] = own.sum().item()
    return totals
