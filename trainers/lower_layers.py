"""Trains only the upper layers. The states that enter them do not change, and are computed once per row."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from aag_hf.collators.kept import GIGABYTE, KeptTensors
from aag_hf.errors import InputError
from aag_hf.hyperlora.adapter_scope import CONTAINER
from aag_hf.questions.states import in_evaluation, with_modules


class UpperLayers:
    """A causal reader without its lower layers, which are not trained.

    The reader's modules and weights are shared, not copied, so training this trains the reader.

    Args:
        reader: A PEFT model whose adapters reach upper layers only.

    Attributes:
        model: The reader from its first adapted block on. Its `inputs_embeds` are the states that enter that block.
        first: The number of that block.

    Raises:
        InputError: The reader has no such blocks, or something outside of them is trained.
    """

    def __init__(self, reader: PeftModel):
        self.reader = reader
        base = reader.get_base_model()
        inner = getattr(base, base.base_model_prefix, None)
        blocks = getattr(inner, "layers", None)
        if not isinstance(blocks, nn.ModuleList) or base.config.is_encoder_decoder:
            raise InputError(f"{type(base).__name__} has no list of layers to leave out: leave keep_lower_states off.")
        self.first = _first_adapted(base, f"{base.base_model_prefix}.layers.")
        if self.first == 0:
            raise InputError("adapters reach the first layer already: leave keep_lower_states off.")
        short = with_modules(inner, layers=blocks[self.first :])
        outer = with_modules(base, **{base.base_model_prefix: short})
        self.model = with_modules(reader, base_model=with_modules(reader.base_model, model=outer))


class WithLowerStates:
    """A collator whose rows enter the upper layers as states. They are kept in their own precision while there is room.

    Args:
        collator: Gives `input_ids`, `attention_mask` and `position_ids` ``(batch, tokens)``.
        upper: The layers that are trained.
        room: The most bytes to keep. The rows least recently used go first.
    """

    def __init__(self, collator: Any, upper: UpperLayers, room: int = 4 * GIGABYTE):
        self.collator = collator
        self.upper = upper
        self._kept = KeptTensors(self._states, room)
        self._checked = False

    def __getattr__(self, name: str) -> Any:
        if name == "collator":
            raise AttributeError(name)
        return getattr(self.collator, name)

    def __call__(self, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
        batch = self.collator(records)
        if not self._checked:
            self._check(batch)
        return self._entering_above(batch)

    def _entering_above(self, batch: dict[str, Any]) -> dict[str, Any]:
        mask = batch["attention_mask"].bool()
        rows = [tuple(ids[seen].tolist()) for ids, seen in zip(batch["input_ids"], mask)]
        found = torch.cat([states for (states,) in self._kept.of(rows)])
        states = found.new_zeros(*mask.shape, found.shape[-1])
        states[mask.to(states.device)] = found
        return {name: value for name, value in batch.items() if name != "input_ids"} | {"inputs_embeds": states}

    @torch.no_grad()
    def _states(self, rows: list[tuple[int, ...]]) -> list[tuple[torch.Tensor]]:
        """The states ``(tokens, d)`` that enter the first adapted block, for each row of token ids."""
        base = self.upper.reader.get_base_model()
        device = next(base.parameters()).device
        ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        mask = (torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in rows]).unsqueeze(1)).long()
        with in_evaluation(base), self.upper.reader.disable_adapter():
            outputs = base.base_model(
                input_ids=ids.to(device), attention_mask=mask.to(device), output_hidden_states=True, use_cache=False
            )
        return [(s[: len(row)].clone(),) for row, s in zip(rows, outputs.hidden_states[self.upper.first])]

    @torch.no_grad()
    def _check(self, batch: dict[str, Any]) -> None:
        """Refuse a model whose upper layers alone give another output than the whole model."""
        device = next(self.upper.reader.parameters()).device
        names = ("input_ids", "attention_mask", "position_ids")
        whole = {name: value[:1].to(device) for name, value in batch.items() if name in names}
        above = self._entering_above(whole)
        with in_evaluation(self.upper.reader), self.upper.reader.disable_adapter():
            expected = self.upper.reader(**whole, use_cache=False).logits.float()
            actual = self.upper.model(**above, use_cache=False).logits.float()
        seen = whole["attention_mask"].bool()
        if (actual - expected)[seen].abs().max() > 0.02 * expected[seen].abs().max():
            base = type(self.upper.reader.get_base_model()).__name__
            raise InputError(f"{base}: its upper layers alone give other answers: leave keep_lower_states off.")
        self._checked = True


def _first_adapted(base: nn.Module, blocks: str) -> int:
    """The number of the first block with an adapter or a trained weight in it."""
    touched = [name for name, module in base.named_modules() if isinstance(module, BaseTunerLayer)]
    touched += [name for name, parameter in base.named_parameters() if parameter.requires_grad]
    touched = [name for name in touched if name.split(".")[0] != CONTAINER]
    numbers = [re.match(re.escape(blocks) + r"(\d+)\.", name) for name in touched]
    outside = [name for name, number in zip(touched, numbers) if number is None]
    if outside or not touched:
        what = f"{outside[0]} is trained too" if outside else "nothing is adapted"
        raise InputError(f"{what}: leave keep_lower_states off.")
    return min(int(number.group(1)) for number in numbers if number is not None)
