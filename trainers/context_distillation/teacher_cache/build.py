"""Runs a teacher over records, for what a cache keeps of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from aag_hf.collators.padding import IGNORE_INDEX
from aag_hf.data.jsonl import write_whole
from aag_hf.errors import InputError
from aag_hf.trainers.answer_logits import answer_outputs, is_encoder_decoder
from aag_hf.trainers.context_distillation.aligned_terms import Layers, Reading, check_returns_states, states_to_return
from aag_hf.trainers.context_distillation.losses import topk_record
from aag_hf.trainers.context_distillation.teacher_cache.columns import PLACES, state_rows
from aag_hf.trainers.context_distillation.teacher_cache.store import (
    DIGITS,
    KEY,
    Entry,
    Kept,
    Place,
    text_digest,
    write_rows,
)

if TYPE_CHECKING:
    from aag_hf.collators import DataCollatorForContextDistillation

Records = Sequence[dict[str, Any]]


@dataclass
class Answers:
    """What a teacher says about a batch.

    Args:
        entries: The records, with their numbers of answer tokens.
        rows: Tensors ``(answer tokens, …)`` of all records, by name.
        states: Of each kind, one tensor per record.
    """

    entries: list[Entry]
    rows: dict[str, Tensor]
    states: dict[str, list[Tensor]]


@dataclass
class Recorder:
    """A teacher, the collator that makes its inputs, and what a cache keeps of it."""

    teacher: nn.Module
    collator: DataCollatorForContextDistillation
    kept: Kept
    aligned: Collection[str]

    @classmethod
    def of(
        cls,
        teacher: nn.Module,
        collator: DataCollatorForContextDistillation,
        top_k: int | None,
        temperature: float | Sequence[float],
        aligned: Collection[str],
        layers: Layers,
    ) -> Recorder:
        """Check the arguments of [`TeacherCache.build`].

        Raises:
            InputError: One of them is out of range, the collator has no `teacher`, or the teacher's states cannot be
                read.
        """
        if collator.teacher is None:
            raise InputError("the collator has no teacher: say what it reads, with a ReaderPrompt.")
        if top_k is not None and top_k < 1:
            raise InputError(f"top_k is {top_k}: keep at least 1 logit, or None for all.")
        check_returns_states(teacher, aligned, "teacher")
        places = PLACES if is_encoder_decoder(teacher) else PLACES[:1]
        temperatures = list(temperature) if isinstance(temperature, Sequence) else [temperature]
        kept = Kept(
            vocabulary=teacher.config.get_text_config().vocab_size,
            top_k=top_k,
            temperatures=None if top_k is None else temperatures,
            states=[f"{place}_{name}" for name in sorted(aligned) for place in places],
            layers=layers if aligned else None,
        )
        return cls(teacher, collator, kept, aligned)

    def key(self, named: dict[str, Any]) -> dict[str, Any]:
        """Everything besides the records on which the cache depends, and what the user named."""
        models = {"tokenizer": _tokenizer_digest(self.collator.tokenizer), "weights": _weights_digest(self.teacher)}
        return named | self.collator.teacher_reading() | models | asdict(self.kept)

    def waiting(self, records: Records, places: dict[str, Place], directory: Path, size: int) -> list[list[int]]:
        """The numbers of the records that are not in `places`, one list per file of `size` records.

        The longest come first: what does not fit fails at once. The list of a complete file is empty. The file of a
        record depends on all records, not only on those that are missing. So a stopped build continues with the same
        files, on any number of processes.

        Raises:
            InputError: A record is not what it was under its id.
        """
        lengths: dict[str, tuple[int, int]] = {}
        digests = {identifier: place.digest for identifier, place in places.items()}
        for number, record in enumerate(records):
            identifier = record["id"]
            texts = self.collator.teacher_texts(record)
            digest = text_digest(texts)
            if digests.setdefault(identifier, digest) != digest:
                raise InputError(
                    f"record {identifier}: its question, target or context is not what the teacher cache {directory} "
                    "holds under this id: choose another folder for the cache, or give the record its own id."
                )
            lengths[identifier] = (-sum(map(len, texts)), number)
        ordered = sorted(lengths, key=lambda identifier: lengths[identifier][0])
        files = [ordered[start : start + size] for start in range(0, len(ordered), size)]
        return [[lengths[identifier][1] for identifier in file if identifier not in places] for file in files]

    def write_file(self, records: Records, directory: Path, key: dict[str, Any], batch_size: int) -> None:
        """Run the teacher over `records`, and write one more file of the cache."""
        batches = [self._answers(records[i : i + batch_size]) for i in range(0, len(records), batch_size)]
        entries = [entry for batch in batches for entry in batch.entries]
        # The key is written first, so no file exists without it. Logits are written last, since they make a record
        # known.
        write_whole((json.dumps(key, indent=2) + "\n").encode(), directory / KEY)
        for kind in self.kept.states:
            states = [tensor for batch in batches for tensor in batch.states[kind]]
            counted = [entry._replace(rows=len(tensor)) for entry, tensor in zip(entries, states)]
            write_rows(directory / kind, counted, [{"states": tensor} for tensor in states])
        write_rows(directory, entries, [batch.rows for batch in batches])

    @torch.no_grad()
    def _answers(self, records: Records) -> Answers:
        inputs = self.collator.teacher_inputs(records)
        counts = (inputs["labels"] != IGNORE_INDEX).sum(dim=1).tolist()
        digests = [text_digest(self.collator.teacher_texts(record)) for record in records]
        entries = [Entry(record["id"], digest, n) for record, digest, n in zip(records, digests, counts)]
        device = next(self.teacher.parameters()).device
        inputs = {name: value.to(device) for name, value in inputs.items()}
        logits, labels, states = answer_outputs(self.teacher.eval(), inputs | states_to_return(self.aligned))
        rows = {"labels": labels, **self._kept_logits(logits)}
        tensors = {}
        if self.kept.layers is not None:
            tensors = state_rows(Reading(inputs, states), self.aligned, self.kept.layers)
        return Answers(
            entries,
            {name: value.cpu() for name, value in rows.items()},
            {kind: [tensor.cpu() for tensor in each] for kind, each in tensors.items()},
        )

    def _kept_logits(self, logits: Tensor) -> dict[str, Tensor]:
        if self.kept.top_k is None or self.kept.temperatures is None:
            return {"logits": logits}
        record = topk_record(logits, self.kept.top_k, self.kept.temperatures)
        return record._asdict() | {"top_indices": record.top_indices.int()}


def _weights_digest(model: nn.Module) -> str:
    """Equal for models whose weights and buffers have the same names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:DIGITS]


def _tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Equal for fast tokenizers that give the same tokens."""
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    # It also keeps the settings of the last call.
    described.update(truncation=None, padding=None, eos_token_id=tokenizer.eos_token_id)
    return text_digest(described)
