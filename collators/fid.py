"""Batches for Fusion-in-Decoder: each passage with its question, ``(batch, passages, tokens)``."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from aag_hf.collators.prompts import Cuts, mark_tokens
from aag_hf.errors import InputError

_BEFORE_QUESTION = "question: "


@dataclass
class DataCollatorForFiD:
    """Turns records with ``ctxs`` into the inputs and labels of a Fusion-in-Decoder reader.

    A passage reads ``question: … title: … context: …`` (Izacard & Grave, EACL 2021, section 3). If that is too long,
    the end of the context is cut, never the question. Records with fewer passages than others get passages of padding.
    Equal records give equal batches, in any process.

    Args:
        tokenizer: A fast tokenizer, since offsets are needed. It truncates on the right and has a padding token.
        max_length: The most tokens per passage, question and special tokens included.
        answer_max_length: The most tokens of an answer, its end token included.
        num_passages: Read at most this many passages, the best ones. ``None`` reads all.
        pad_to_multiple_of: Round the lengths of passages and answers up to a multiple of this.
        cut: Counts the texts shortened so far, by kind.

    Returns:
        A call with a list of records gives

        - `input_ids`, `attention_mask`: ``(batch, passages, tokens)``, as wide as the batch needs;
        - `question_mask`: ``(batch, passages, tokens)`` bool, true at the tokens of the question itself;
        - `labels`: ``(batch, answer tokens)`` of `target`, or else the first answer; -100 at padding.

    Raises:
        InputError: The tokenizer or a limit cannot be used. On a call: a record has no passages, a passage has no text,
            or a question alone exceeds `max_length`; the message names the record.

    Example:

    ```python
    collator = DataCollatorForFiD(AutoTokenizer.from_pretrained("google-t5/t5-base"), num_passages=10)
    loader = DataLoader(read_records("nq/train.jsonl"), batch_size=4, collate_fn=collator)
    ```
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int = 256
    answer_max_length: int = 256
    num_passages: int | None = None
    pad_to_multiple_of: int | None = None
    cut: Cuts = field(default_factory=Cuts, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.tokenizer.is_fast:
            raise InputError(f"{type(self.tokenizer).__name__} has no offsets: load the tokenizer with use_fast=True.")
        if self.tokenizer.pad_token_id is None:
            raise InputError("the tokenizer has no padding token: set tokenizer.pad_token.")
        if self.tokenizer.truncation_side != "right":
            raise InputError("the tokenizer truncates on the left, which cuts questions: set truncation_side='right'.")
        for name in ("max_length", "answer_max_length", "num_passages", "pad_to_multiple_of"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}: it must be at least 1.")

    def __call__(self, records: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        return {**self.passage_inputs(records), "labels": self._encode_answers(records)}

    def passage_inputs(self, records: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """A batch without labels: `input_ids`, `attention_mask` and `question_mask`."""
        questions = [self._encode_passages(record) for record in records]
        count = max(len(passages) for passages in questions)
        width = self._padded_length(len(ids) for passages in questions for ids, _ in passages)
        shape = (len(records), count, width)
        input_ids = torch.full(shape, self.tokenizer.pad_token_id)
        attention_mask = torch.zeros(shape, dtype=torch.long)
        question_mask = torch.zeros(shape, dtype=torch.bool)
        for row, passages in enumerate(questions):
            for column, (ids, in_question) in enumerate(passages):
                input_ids[row, column, : len(ids)] = torch.tensor(ids)
                attention_mask[row, column, : len(ids)] = 1
                question_mask[row, column, : len(ids)] = torch.tensor(in_question)
        return {"input_ids": input_ids, "attention_mask": attention_mask, "question_mask": question_mask}

    def passage_texts(self, record: dict[str, Any]) -> list[str]:
        """The part of each passage that is read beside the question: title and context."""
        passages = (record.get("ctxs") or [])[: self.num_passages]
        if not passages:
            raise InputError(f"record {record['id']!r} has no passages: retrieve some into its 'ctxs' first.")
        for position, passage in enumerate(passages):
            if not isinstance(passage, dict) or not str(passage.get("text") or "").strip():
                raise InputError(f"record {record['id']!r}: ctxs[{position}] has no text.")
        return [f"title: {passage.get('title') or ''} context: {passage['text']}" for passage in passages]

    def _encode_passages(self, record: dict[str, Any]) -> list[tuple[list[int], list[bool]]]:
        """The token ids of each passage, and for each whether it belongs to the question."""
        question = _BEFORE_QUESTION + record["question"].strip()
        self._require_question_fits(record, question)
        texts = [f"{question} {passage}" for passage in self.passage_texts(record)]
        encoded = self.tokenizer(texts, truncation=True, max_length=self.max_length, return_offsets_mapping=True)
        self.cut["passages"] += sum(bool(encoding.overflowing) for encoding in encoded.encodings)
        span = len(_BEFORE_QUESTION), len(question)
        return [
            (ids, mark_tokens(offsets, [span])) for ids, offsets in zip(encoded["input_ids"], encoded["offset_mapping"])
        ]

    def _require_question_fits(self, record: dict[str, Any], question: str) -> None:
        length = len(self.tokenizer(question)["input_ids"])
        if length > self.max_length:
            raise InputError(
                f"record {record['id']!r}: the question alone takes {length} tokens, max_length is {self.max_length}: "
                "raise max_length or drop the record."
            )

    def _encode_answers(self, records: Sequence[dict[str, Any]]) -> Tensor:
        targets = [record.get("target") or record["answers"][0] for record in records]
        encoded = self.tokenizer(text_target=targets, truncation=True, max_length=self.answer_max_length)["input_ids"]
        labels = torch.full((len(records), self._padded_length(map(len, encoded))), -100)
        for row, ids in enumerate(encoded):
            labels[row, : len(ids)] = torch.tensor(ids)
        return labels

    def _padded_length(self, lengths: Iterable[int]) -> int:
        multiple = self.pad_to_multiple_of or 1
        return -(-max(lengths) // multiple) * multiple
