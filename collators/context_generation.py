"""Batches of stage 1: a question in, its compressed context out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from aag_hf.collators.padding import pad_inputs, pad_sequence_to_sequence
from aag_hf.collators.prompts import Cuts, check_columns, check_prompt, encode_prompt, encode_target
from aag_hf.data.contexts import GENERATOR_PROMPT, context_of


@dataclass
class DataCollatorForContextGeneration:
    """Batches for training a context generator, and its prompts for generation.

    Args:
        tokenizer: The generator's tokenizer.
        is_encoder_decoder: Whether the generator is an encoder-decoder model.
        prompt: Text with ``{question}``.
        max_length: The most tokens of a prompt.
        target_max_length: The most tokens of a target, the end token included.
        pad_to_multiple_of: Round lengths up to a multiple of this.

    Calling it takes records with `compressed_context` and gives `input_ids`, `attention_mask` and `labels`, each
    ``(batch, tokens)``, padded to the longest row of the batch, and for causal models `position_ids`.

    Raises:
        InputError: The prompt lacks its placeholder. On a call: a record lacks `compressed_context`, or its question
            exceeds `max_length`; the message names the record.
    """

    tokenizer: PreTrainedTokenizerBase
    is_encoder_decoder: bool = False
    prompt: str = GENERATOR_PROMPT
    max_length: int = 128
    target_max_length: int = 128
    pad_to_multiple_of: int | None = None
    cut: Cuts = field(default_factory=Cuts, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_prompt("prompt", self.prompt, contexts=0)

    def __call__(self, records: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        check_columns(records, "question")
        targets = [
            encode_target(
                self.tokenizer,
                context_of(record, "compressed") or "",
                self.target_max_length,
                self.is_encoder_decoder,
                self.cut,
                "contexts written",
            )
            for record in records
        ]
        return pad_sequence_to_sequence(
            self._prompts(records),
            targets,
            self.tokenizer.pad_token_id,
            self.is_encoder_decoder,
            self.pad_to_multiple_of,
        )

    def generation_inputs(self, records: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Prompts alone, padded for `generate`: `input_ids` and `attention_mask` ``(batch, tokens)``."""
        side = "right" if self.is_encoder_decoder else "left"
        inputs = pad_inputs(self._prompts(records), self.tokenizer.pad_token_id, side, self.pad_to_multiple_of)
        return {name: inputs[name] for name in ("input_ids", "attention_mask")}

    def _prompts(self, records: Sequence[dict[str, Any]]) -> list[list[int]]:
        return [encode_prompt(self.tokenizer, self.prompt, r, None, self.max_length) for r in records]
