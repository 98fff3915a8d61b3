"""Stage 2: what student and teacher read about the same questions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedTokenizerBase

from aag_hf.collators.fid import DataCollatorForFiD
from aag_hf.collators.padding import IGNORE_INDEX, pack, pad, pad_inputs, pad_sequence_to_sequence
from aag_hf.collators.prompts import check_prompt, encode_marked_prompt, encode_target
from aag_hf.data.contexts import READER_CONTEXT_PROMPT, READER_PROMPT, ContextSource, context_of, target_of
from aag_hf.errors import InputError

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
        passages: How many passages ``"passages"`` reads.
        teacher_passages: How many of them the teacher reads; ``None`` for as many.
        fid: Whether the student reads ``"passages"`` the Fusion-in-Decoder way, each on its own with the question, as
            [`DataCollatorForFiD`] writes them; else they are joined in one prompt.
        teacher_fid: The same for the teacher.
        question_mask: Whether to say which tokens are the question's, to align them; for encoder-decoder models.
        needs_features: Whether records must have `features`, for a HyperLoRA student.
        prompt: Text with ``{question}``.
        context_prompt: Text with ``{context}`` and ``{question}``.
        max_length: Most tokens of a prompt; what is too long is cut from the context.
        answer_max_length: Most tokens of an answer, the end token included.
        pad_to_multiple_of: Round lengths up.
        padding_free: Lay a causal student's rows one after another into a single row, see [`~.padding.pack`]; not the
            teacher's. It needs an attention that keeps them apart by `position_ids`, as most of transformers' do; a
            [`ContextDistillationTrainer`] refuses a model that does not.
        teacher_cache: What the teacher says about all records that will come, instead of what it reads.

    Calling it takes records and gives `input_ids`, `attention_mask`, `labels` ``(batch, tokens)``, `features`
    ``(batch, feature_dim)``, for causal models `position_ids`, and all but `features` again with ``teacher_`` before
    the name: answers stand in the same order in both. With a cache, the columns of [`TeacherCache.collate`] instead.
    Fusion-in-Decoder inputs are ``(batch, passages, tokens)``; so is their `question_mask`, else ``(batch, tokens)``.

    Raises:
        InputError: A prompt without its placeholders, a tokenizer without offsets, or what only encoder-decoder models
            have for a causal one; on a call, a record that lacks what is to be read, or whose question `max_length`
            does not hold; names the record.
    """

    tokenizer: PreTrainedTokenizerBase
    is_encoder_decoder: bool = False
    context: ContextSource = "none"
    teacher_context: ContextSource | None = None
    passages: int = 1
    teacher_passages: int | None = None
    fid: bool = False
    teacher_fid: bool = False
    question_mask: bool = False
    needs_features: bool = False
    prompt: str = READER_PROMPT
    context_prompt: str = READER_CONTEXT_PROMPT
    max_length: int = 256
    answer_max_length: int = 32
    pad_to_multiple_of: int | None = None
    padding_free: bool = False
    teacher_cache: "TeacherCache | None" = None

    def __post_init__(self) -> None:
        check_prompt("prompt", self.prompt, contexts=0)
        check_prompt("context_prompt", self.context_prompt, contexts=1)
        if not self.tokenizer.is_fast:
            raise InputError(f"{type(self.tokenizer).__name__} has no offsets: load the tokenizer with use_fast=True.")
        for name in ("fid", "teacher_fid", "question_mask"):
            if getattr(self, name) and not self.is_encoder_decoder:
                raise InputError(f"{name} is for encoder-decoder models: leave it off for a causal one.")
        if self.padding_free and (self.is_encoder_decoder or self.pad_to_multiple_of):
            raise InputError(
                "padding_free is for causal models, and without pad_to_multiple_of: leave one of them out."
            )
        for name, count in (("passages", self.passages), ("teacher_passages", self.teacher_passages)):
            if count is not None and count < 1:
                raise InputError(f"{name} is {count}: read at least 1, or another context than 'passages'.")

    def __call__(self, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
        if self.padding_free:
            prompts = [ids for ids, _ in self._prompts(records, self.context, self.passages)]
            batch = pack(prompts, self._targets(records))
        else:
            batch = self._inputs(records, self.context, self.passages, self.fid)
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
        return self._inputs(records, self.teacher_context, self._teacher_passages, self.teacher_fid)

    def teacher_reading(self) -> dict[str, Any]:
        """What, besides a record and the tokenizer, determines the teacher's inputs, as plain JSON values."""
        reads_passages = self.teacher_context == "passages"
        fid = self.teacher_fid and reads_passages
        return {
            "teacher_context": self.teacher_context,
            "teacher_fid": fid,
            "teacher_passages": self._teacher_passages if reads_passages else None,
            "teacher_prompt": None if fid else self._prompt_of(self.teacher_context),
            "max_length": self.max_length,
            "answer_max_length": self.answer_max_length,
        }

    def teacher_texts(self, record: dict[str, Any]) -> list[str]:
        """Everything of a record that the teacher reads or predicts: question, answer and context."""
        assert self.teacher_context is not None
        texts = [record["question"], target_of(record)]
        if self.teacher_fid and self.teacher_context == "passages":
            return texts + self._fid_collator(self._teacher_passages).passage_texts(record)
        return [*texts, context_of(record, self.teacher_context, self._teacher_passages) or ""]

    def generation_inputs(self, records: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Prompts alone, padded for `generate`: `input_ids`, `attention_mask` as in training, and `features`."""
        if self.fid and self.context == "passages":
            inputs = self._fid_collator(self.passages).passage_inputs(records)
        else:
            side = "right" if self.is_encoder_decoder else "left"
            prompts = [ids for ids, _ in self._prompts(records, self.context, self.passages)]
            inputs = pad_inputs(prompts, self.tokenizer.pad_token_id, side, self.pad_to_multiple_of)
        inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        if self.needs_features:
            inputs["features"] = stack_features(records)
        return inputs

    @property
    def _teacher_passages(self) -> int:
        return self.passages if self.teacher_passages is None else self.teacher_passages

    def _inputs(
        self, records: Sequence[dict[str, Any]], source: ContextSource, passages: int, fid: bool
    ) -> dict[str, torch.Tensor]:
        targets = self._targets(records)
        if fid and source == "passages":
            inputs = self._fid_collator(passages).passage_inputs(records)
            if not self.question_mask:
                del inputs["question_mask"]
            return {**inputs, "labels": pad(targets, IGNORE_INDEX, "right", self.pad_to_multiple_of)}
        prompts = self._prompts(records, source, passages)
        inputs = pad_sequence_to_sequence(
            [ids for ids, _ in prompts],
            targets,
            self.tokenizer.pad_token_id,
            self.is_encoder_decoder,
            self.pad_to_multiple_of,
        )
        if self.question_mask:
            marks = [in_question for _, in_question in prompts]
            inputs["question_mask"] = pad(marks, False, "right", self.pad_to_multiple_of).bool()
        return inputs

    def _targets(self, records: Sequence[dict[str, Any]]) -> list[list[int]]:
        return [
            encode_target(self.tokenizer, target_of(record), self.answer_max_length, self.is_encoder_decoder)
            for record in records
        ]

    def _fid_collator(self, passages: int) -> DataCollatorForFiD:
        return DataCollatorForFiD(
            self.tokenizer, self.max_length, num_passages=passages, pad_to_multiple_of=self.pad_to_multiple_of
        )

    def _prompts(
        self, records: Sequence[dict[str, Any]], source: ContextSource, passages: int
    ) -> list[tuple[list[int], list[bool]]]:
        """Token ids of each prompt, and which of them belong to the question."""
        template = self._prompt_of(source)
        return [
            encode_marked_prompt(
                self.tokenizer, template, record, context_of(record, source, passages), self.max_length
            )
            for record in records
        ]

    def _prompt_of(self, source: ContextSource | None) -> str:
        return self.prompt if source == "none" else self.context_prompt


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
