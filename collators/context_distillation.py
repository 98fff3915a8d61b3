"""Stage 2: what student and teacher read about the same questions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedTokenizerBase

from aag_hf.collators.padding import pad_inputs, pad_sequence_to_sequence
from aag_hf.collators.prompts import check_prompt, encode_prompt, encode_target
from aag_hf.data.contexts import READER_CONTEXT_PROMPT, READER_PROMPT, ContextSource, context_of, target_of
from aag_hf.data.errors import InputError

if TYPE_CHECKING:
    from aag_hf.trainers import TeacherCache


@dataclass
class DataCollatorForContextDistillation:
    """Batches for training a reader, with or without a teacher, and its prompts for generation.

    Args:
        tokenizer: The tokenizer of student and teacher.
        is_encoder_decoder: What kind of model the student is.
        context: What the student reads beside the question.
        teacher_context: What the teacher reads; ``None`` if there is no teacher.
        passages: How many passages ``"passages"`` joins.
        needs_features: Whether records must have `features`, for a HyperLoRA student.
        prompt: Text with ``{question}``.
        context_prompt: Text with ``{context}`` and ``{question}``.
        max_length: Most tokens of a prompt; what is too long is cut from the context.
        answer_max_length: Most tokens of an answer, the end token included.
        pad_to_multiple_of: Round lengths up.
        teacher_cache: The teacher's logits of all records that will come, instead of what the teacher reads.

    Calling it takes records and gives `input_ids`, `attention_mask`, `labels` ``(batch, tokens)``, `features`
    ``(batch, feature_dim)``, for causal models `position_ids`, and all but `features` again with ``teacher_`` before
    the name: answers stand in the same order in both. With a cache, the columns of [`TeacherCache.collate`] instead.

    Raises:
        InputError: A prompt without its placeholders or a tokenizer without offsets; on a call, a record that
            lacks what is to be read, or whose question `max_length` does not hold; names the record.
    """

    tokenizer: PreTrainedTokenizerBase
    is_encoder_decoder: bool = False
    context: ContextSource = "none"
    teacher_context: ContextSource | None = None
    passages: int = 1
    needs_features: bool = False
    prompt: str = READER_PROMPT
    context_prompt: str = READER_CONTEXT_PROMPT
    max_length: int = 256
    answer_max_length: int = 32
    pad_to_multiple_of: int | None = None
    teacher_cache: "TeacherCache | None" = None

    def __post_init__(self) -> None:
        check_prompt("prompt", self.prompt, contexts=0)
        check_prompt("context_prompt", self.context_prompt, contexts=1)
        if not self.tokenizer.is_fast:
            raise InputError(f"{type(self.tokenizer).__name__} has no offsets: load the tokenizer with use_fast=True.")

    def __call__(self, records: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = self._inputs(records, self.context)
        if self.needs_features:
            batch["features"] = stack_features(records)
        if self.teacher_cache is not None:
            batch.update(self.teacher_cache.collate(records))
        elif self.teacher_context is not None:
            batch.update({f"teacher_{name}": tensor for name, tensor in self.teacher_inputs(records).items()})
        return batch

    def teacher_inputs(self, records: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """What the teacher reads, and its `labels`, ``(batch, tokens)``; needs a `teacher_context`."""
        assert self.teacher_context is not None
        return self._inputs(records, self.teacher_context)

    def generation_inputs(self, records: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Prompts alone, padded for `generate`: `input_ids`, `attention_mask` ``(batch, tokens)`` and `features`."""
        side = "right" if self.is_encoder_decoder else "left"
        prompts = self._prompts(records, self.context)
        inputs = pad_inputs(prompts, self.tokenizer.pad_token_id, side, self.pad_to_multiple_of)
        inputs.pop("position_ids", None)
        if self.needs_features:
            inputs["features"] = stack_features(records)
        return inputs

    def _inputs(self, records: Sequence[dict[str, Any]], context: ContextSource) -> dict[str, torch.Tensor]:
        targets = [
            encode_target(self.tokenizer, target_of(record), self.answer_max_length, self.is_encoder_decoder)
            for record in records
        ]
        return pad_sequence_to_sequence(
            self._prompts(records, context),
            targets,
            self.tokenizer.pad_token_id,
            self.is_encoder_decoder,
            self.pad_to_multiple_of,
        )

    def _prompts(self, records: Sequence[dict[str, Any]], source: ContextSource) -> list[list[int]]:
        template = self.prompt if source == "none" else self.context_prompt
        return [
            encode_prompt(self.tokenizer, template, record, context_of(record, source, self.passages), self.max_length)
            for record in records
        ]


def stack_features(records: Sequence[dict[str, Any]]) -> torch.Tensor:
    """The records' features as ``(batch, feature_dim)``.

    Raises:
        InputError: A record without features, or of another size than the first.
    """
    for record in records:
        if record.get("features") is None:
            raise InputError(f"record {record['id']}: has no features: encode its question first.")
        if len(record["features"]) != len(records[0]["features"]):
            raise InputError(
                f"record {record['id']}: has {len(record['features'])} features, record {records[0]['id']} has "
                f"{len(records[0]['features'])}: encode all questions with the same QuestionEncoder."
            )
    return torch.tensor([record["features"] for record in records], dtype=torch.float32)
