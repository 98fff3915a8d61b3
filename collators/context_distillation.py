"""Batches of stage 2: the inputs of student and teacher about the same questions."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedTokenizerBase

from aag_hf.collators.documents import RecordDocuments
from aag_hf.collators.fid import DataCollatorForFiD
from aag_hf.collators.padding import IGNORE_INDEX, pack, pad, pad_inputs, pad_sequence_to_sequence
from aag_hf.collators.prompts import Cuts, check_columns, encode_marked_prompt, encode_target
from aag_hf.collators.reader_prompt import ReaderPrompt
from aag_hf.data.contexts import target_of
from aag_hf.errors import InputError

if TYPE_CHECKING:
    from aag_hf.trainers import TeacherCache


@dataclass
class DataCollatorForContextDistillation:
    """Batches for training a reader, with or without a teacher, and its prompts for generation.

    Args:
        tokenizer: The tokenizer of student and teacher.
        is_encoder_decoder: Whether the student is an encoder-decoder model.
        student: What the student reads.
        teacher: What the teacher reads, as saved with it. ``None`` if there is no teacher.
        question_mask: Whether to mark the question's tokens, to align them. For encoder-decoder models.
        needs_features: Whether records must have `features`, for a HyperLoRA student whose adapters are made from
            questions.
        documents: Gives the documents of records, for a HyperLoRA student whose adapters are made from documents.
        answer_max_length: The most tokens of an answer, the end token included.
        pad_to_multiple_of: Round lengths up to a multiple of this.
        padding_free: Put the rows of a causal student one after another into a single row, see [`~.padding.pack`]; not
            those of the teacher. The attention must keep rows apart by `position_ids`, as most of transformers' do. A
            [`ContextDistillationTrainer`] refuses a model that does not.
        teacher_cache: A cache of the teacher's answers to all records, which replaces the teacher's inputs.

    Calling it takes records and gives `input_ids`, `attention_mask`, `labels` ``(batch, tokens)``, `features`
    ``(batch, feature_dim)``, `documents` as [`~aag_hf.hyperlora.document_states.DocumentStates`], for causal models
    `position_ids`, and all but `features` and `documents` again with ``teacher_`` before
    the name: answers stand in the same order in both. With a cache, the columns of [`TeacherCache.collate`] instead.
    Fusion-in-Decoder inputs are ``(batch, passages, tokens)``; so is their `question_mask`, else ``(batch, tokens)``.

    `cut` counts the texts shortened so far in this process, by kind: see [`~.prompts.Cuts`].

    Raises:
        InputError: The tokenizer has no offsets, an option for encoder-decoder models is set for a causal one, or only
            one of student and teacher is asked in a chat. On a call: a record lacks what is read, or its question
            exceeds the limit; the message names the record.

    Example:

    ```python
    teacher = ReaderPrompt(context="passages", passages=10, prompt_max_length=2048)
    collator = DataCollatorForContextDistillation(tokenizer, teacher=teacher, needs_features=True)
    ```
    """

    tokenizer: PreTrainedTokenizerBase
    is_encoder_decoder: bool = False
    student: ReaderPrompt = field(default_factory=ReaderPrompt)
    teacher: ReaderPrompt | None = None
    question_mask: bool = False
    needs_features: bool = False
    documents: RecordDocuments | None = None
    answer_max_length: int = 32
    pad_to_multiple_of: int | None = None
    padding_free: bool = False
    teacher_cache: "TeacherCache | None" = None
    cut: Cuts = field(default_factory=Cuts, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.tokenizer.is_fast:
            raise InputError(f"{type(self.tokenizer).__name__} has no offsets: load the tokenizer with use_fast=True.")
        teacher_reads_apart = self.teacher is not None and self.teacher.fid
        wanted = {
            "fid": self.student.fid,
            "the teacher's fid": teacher_reads_apart,
            "question_mask": self.question_mask,
        }
        for name, is_on in wanted.items():
            if is_on and not self.is_encoder_decoder:
                raise InputError(f"{name} is for encoder-decoder models: leave it off for a causal one.")
        if self.teacher is not None and self.teacher.chat != self.student.chat:
            raise InputError("student and teacher predict the same tokens: let both be asked in a chat, or neither.")
        if self.padding_free and (self.is_encoder_decoder or self.pad_to_multiple_of):
            raise InputError(
                "padding_free is for causal models, and without pad_to_multiple_of: leave one of them out."
            )
        if self.answer_max_length < 1:
            raise InputError(f"answer_max_length is {self.answer_max_length}: it must be at least 1.")

    def __call__(self, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
        check_columns(records, "question", "answers")
        if self.padding_free:
            prompts = [ids for ids, _ in self._prompts(records, self.student)]
            batch = pack(prompts, self._targets(records))
        else:
            batch = self._inputs(records, self.student)
        if self.needs_features:
            batch["features"] = stack_features(records)
        if self.documents is not None:
            batch["documents"] = self.documents(records)
        if self.teacher_cache is not None:
            batch.update(self.teacher_cache.collate(records))
        elif self.teacher is not None:
            batch.update({f"teacher_{name}": tensor for name, tensor in self.teacher_inputs(records).items()})
        return batch

    def teacher_inputs(self, records: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """The teacher's inputs and `labels` ``(batch, tokens)``. Needs a `teacher`."""
        assert self.teacher is not None
        return self._inputs(records, self.teacher)

    def teacher_reading(self) -> dict[str, Any]:
        """Everything besides record and tokenizer that determines the teacher's inputs, as plain JSON values."""
        assert self.teacher is not None
        described = {f"teacher_{name}": value for name, value in self.teacher.describe().items()}
        return described | {"answer_max_length": self.answer_max_length}

    def teacher_texts(self, record: dict[str, Any]) -> list[str]:
        """All texts of a record that the teacher reads or predicts: question, answer and context."""
        assert self.teacher is not None
        texts = [record["question"], target_of(record)]
        if self.teacher.reads_apart:
            return texts + self._fid_collator(self.teacher).passage_texts(record)
        return [*texts, self.teacher.context_of(record) or ""]

    def generation_inputs(self, records: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Prompts alone, padded for `generate`: `input_ids`, `attention_mask` as in training, and `features`."""
        if self.student.reads_apart:
            inputs = self._fid_collator(self.student).passage_inputs(records)
        else:
            side = "right" if self.is_encoder_decoder else "left"
            prompts = [ids for ids, _ in self._prompts(records, self.student)]
            inputs = pad_inputs(prompts, self.tokenizer.pad_token_id, side, self.pad_to_multiple_of)
        inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        if self.needs_features:
            inputs["features"] = stack_features(records)
        if self.documents is not None:
            inputs["documents"] = self.documents(records)
        return inputs

    def _inputs(self, records: Sequence[dict[str, Any]], reader: ReaderPrompt) -> dict[str, torch.Tensor]:
        targets = self._targets(records)
        if reader.reads_apart:
            inputs = self._fid_collator(reader).passage_inputs(records)
            if not self.question_mask:
                del inputs["question_mask"]
            return {**inputs, "labels": pad(targets, IGNORE_INDEX, "right", self.pad_to_multiple_of)}
        prompts = self._prompts(records, reader)
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
        apart = self.is_encoder_decoder or self.student.chat
        return [
            encode_target(self.tokenizer, target_of(record), self.answer_max_length, apart, self.cut, "answers")
            for record in records
        ]

    def _fid_collator(self, reader: ReaderPrompt) -> DataCollatorForFiD:
        return DataCollatorForFiD(
            self.tokenizer,
            reader.prompt_max_length,
            num_passages=reader.passages,
            pad_to_multiple_of=self.pad_to_multiple_of,
            cut=self.cut,
        )

    def _prompts(self, records: Sequence[dict[str, Any]], reader: ReaderPrompt) -> list[tuple[list[int], list[bool]]]:
        """The token ids of each prompt, and for each whether it belongs to the question."""
        return [
            encode_marked_prompt(
                self.tokenizer,
                reader.template,
                record,
                reader.context_of(record),
                reader.prompt_max_length,
                self.cut,
                reader.chat,
            )
            for record in records
        ]


def stack_features(records: Sequence[dict[str, Any]]) -> torch.Tensor:
    """The records' features as ``(batch, feature_dim)``.

    Raises:
        InputError: The features of a record are missing, not finite, or of another size than the first; the message
            names the record.
    """
    for record in records:
        if record.get("features") is None:
            raise InputError(f"record {record['id']}: has no features: encode its question first.")
        if len(record["features"]) != len(records[0]["features"]):
            raise InputError(
                f"record {record['id']}: has {len(record['features'])} features, record {records[0]['id']} has "
                f"{len(records[0]['features'])}: encode all questions with the same QuestionEncoder."
            )
    features = torch.tensor([record["features"] for record in records], dtype=torch.float32)
    broken = (~features.isfinite()).any(dim=1).nonzero().flatten().tolist()
    if broken:
        raise InputError(f"record {records[broken[0]]['id']}: has NaN or infinity in its features: encode it again.")
    return features
