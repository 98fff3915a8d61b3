"""Stops training when a loss or a gradient is not finite."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerState, TrainingArguments

from aag_hf.errors import DivergenceError

RECORD_IDS = "record_ids"
_REMEDY = "look at these records and at the model's weights, or lower the learning rate."


class WithRecordIds:
    """A collator whose batches also name their records, if these have ids."""

    def __init__(self, collator: Callable[[Sequence[Any]], Any]):
        self.collator = collator

    def __call__(self, records: Sequence[Any]) -> Any:
        batch = self.collator(records)
        if all(isinstance(record, Mapping) and "id" in record for record in records):
            batch[RECORD_IDS] = [str(record["id"]) for record in records]
        return batch


def check_terms(values: Mapping[str, Tensor], loss: Tensor, step: int, record_ids: Sequence[str] | None) -> None:
    """Refuse a loss that is not finite.

    Args:
        values: The terms of the loss, by name.
        loss: Their weighted sum.
        step: The optimizer step, counted from 1.
        record_ids: The batch's records.

    Raises:
        DivergenceError: The loss is not finite; the message names the step, the term and the records.
    """
    if loss.isfinite():
        return
    broken = {name: value.item() for name, value in values.items() if not value.isfinite()} or {"loss": loss.item()}
    terms = ", ".join(f"{name} is {value}" for name, value in broken.items())
    raise DivergenceError(f"step {step}: {terms}{_of_records(record_ids)}: {_REMEDY}")


class GradientCheck(TrainerCallback):
    """Refuses gradients that are not finite before the optimizer takes them.

    In half precision with a scaler they are no error, since the scaler skips the step and lowers its scale.
    """

    def __init__(self) -> None:
        self.record_ids: list[str] = []

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: Any,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Check the gradients of all trained parameters."""
        gradients = [p.grad for p in model.parameters() if p.grad is not None] if model is not None else []
        if gradients and not args.fp16 and not torch.nn.utils.get_total_norm(gradients).isfinite():
            raise DivergenceError(
                f"step {state.global_step + 1}: the gradient is not finite{_of_records(self.record_ids)}: {_REMEDY}"
            )
        self.record_ids.clear()


def _of_records(record_ids: Sequence[str] | None) -> str:
    return f" in the batch of records {', '.join(record_ids)}" if record_ids else ""
