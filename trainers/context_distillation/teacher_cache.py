"""A frozen teacher's logits at the answer tokens, computed once for every epoch and every student."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from aag_hf.data.errors import InputError
from aag_hf.data.jsonl import write_whole
from aag_hf.trainers.answer_logits import IGNORE_INDEX, answer_logits
from aag_hf.trainers.context_distillation.fingerprints import (
    text_fingerprint,
    tokenizer_fingerprint,
    weights_fingerprint,
)
from aag_hf.trainers.context_distillation.losses import distillation_kl, topk_distillation_kl, topk_record
from aag_hf.trainers.context_distillation.row_files import PATTERN, Entry, Place, list_rows, read_rows, write_rows

if TYPE_CHECKING:
    from aag_hf.collators import DataCollatorForContextDistillation

Records = Sequence[dict[str, Any]]
Columns = dict[str, Any]

KEY = "key.json"
# A file is whole or absent: a stopped build loses at most so many batches, and no more are held in memory.
BATCHES_PER_FILE = 16


class TeacherCache:
    """What a teacher says at the answer tokens of records, by the records' ids.

    The folder holds ``key.json``, everything the logits depend on besides the records, and ``.safetensors`` files, each
    with some records' rows and the list of them; a file appears only when it is complete. `collate` reads no more than
    the rows it is asked for.

    Args:
        directory: A folder that [`TeacherCache.build`] made.

    Raises:
        InputError: It is no such folder, or one of its files is damaged.

    Example:

    ```python
    collator.teacher_cache = TeacherCache.build(
        teacher, collator, records, "runs/cache", key={"teacher": "runs/teacher"}, top_k=64, temperature=3.0
    )
    trainer = ContextDistillationTrainer(student, args, train_dataset=records, data_collator=collator)
    ```
    """

    def __init__(self, directory: str | os.PathLike[str]):
        self.directory = Path(directory)
        if not (self.directory / KEY).is_file():
            raise InputError(f"{directory}: has no {KEY}: make a teacher cache there with TeacherCache.build.")
        self.key: dict[str, Any] = json.loads((self.directory / KEY).read_text(encoding="utf-8"))
        self._places = list_rows(self.directory)

    @classmethod
    def build(
        cls,
        teacher: nn.Module,
        collator: DataCollatorForContextDistillation,
        records: Records,
        directory: str | os.PathLike[str],
        *,
        key: dict[str, Any],
        top_k: int | None,
        temperature: float | Sequence[float],
        batch_size: int = 32,
    ) -> TeacherCache:
        """Open the cache in `directory` after running the teacher over those of `records` that it lacks.

        The teacher's weights, the tokenizer and the prompts are part of the cache's key, without being given.

        Args:
            teacher: A causal or encoder-decoder model; it runs where it is, in evaluation mode.
            collator: Has a `teacher_context`.
            records: What student batches will be made of.
            directory: The cache's folder; others may be using it.
            key: What the user calls things: plain JSON values that name a difference better than digests do.
            top_k: How many logits of each token to keep, beside the weight of the others; ``None`` keeps all, in the
                teacher's type.
            temperature: The one to train with, or all of a schedule, as [`ContextDistillationConfig.temperatures`]
                gives them; all logits serve any.
            batch_size: Records a forward pass.

        Raises:
            InputError: The folder was made from another key or a record's other text, which the message names; `top_k`
                or `temperature` is out of range; or the collator has no `teacher_context`.
        """
        if collator.teacher_context is None:
            raise InputError("the collator has no teacher_context: say what the teacher reads.")
        if top_k is not None and top_k < 1:
            raise InputError(f"top_k is {top_k}: keep at least 1 logit, or None for all.")
        temperatures = list(temperature) if isinstance(temperature, Sequence) else [temperature]
        key = {
            **key,
            **collator.teacher_reading(),
            "tokenizer": tokenizer_fingerprint(collator.tokenizer),
            "weights": weights_fingerprint(teacher),
            "vocabulary": teacher.config.get_text_config().vocab_size,
            "top_k": top_k,
            "temperatures": None if top_k is None else temperatures,
        }
        directory = Path(directory)
        _check_key(directory, key)
        known = cls(directory)._places if (directory / KEY).is_file() else {}
        waiting = _waiting(records, collator, known, directory)
        size = BATCHES_PER_FILE * batch_size
        files = [waiting[i : i + size] for i in range(0, len(waiting), size)]
        for group in track(files, "Teacher", console=Console(stderr=True), transient=True, disable=not files):
            batches = [group[i : i + batch_size] for i in range(0, len(group), batch_size)]
            entries, rows = zip(*(_answer_rows(teacher, collator, batch, key) for batch in batches))
            # The key comes first: a file that exists is never without it.
            write_whole((json.dumps(key, indent=2) + "\n").encode(), directory / KEY)
            write_rows(directory, [entry for batch in entries for entry in batch], rows)
        return cls(directory)

    def collate(self, records: Records) -> Columns:
        """The batch's columns, rows in the order in which `answer_logits` gives the student's.

        Returns:
            `teacher_labels` ``(answer tokens,)``, and `teacher_logits` ``(answer tokens, vocab)`` or else
            `teacher_top_values` and `teacher_top_indices` ``(answer tokens, k)``, `teacher_tail_logsumexp`
            ``(answer tokens, temperatures)``, the list of `teacher_temperatures` and the size of `teacher_vocabulary`.

        Raises:
            InputError: A record is not in the cache; names it.
        """
        for record in records:
            if record["id"] not in self._places:
                raise InputError(
                    f"record {record['id']}: not in the teacher cache {self.directory}: build it for all records."
                )
        rows = [read_rows(self._places[record["id"]]) for record in records]
        columns: Columns = {f"teacher_{name}": torch.cat([row[name] for row in rows]) for name in rows[0]}
        if self.key["top_k"] is not None:
            columns["teacher_top_indices"] = columns["teacher_top_indices"].long()
            columns.update({f"teacher_{name}": self.key[name] for name in ("temperatures", "vocabulary")})
        return columns


def is_cached(columns: Columns) -> bool:
    """Whether a batch's teacher columns, without their prefix, are a cache's and not a teacher's inputs."""
    return "logits" in columns or "top_values" in columns


def cached_distillation_kl(logits: Tensor, labels: Tensor, columns: Columns, temperature: float) -> Tensor:
    """:func:`~.losses.distillation_kl` from cached columns; with `top_k`, exact over {k tokens, all others}.

    Args:
        logits: The student's, ``(answer tokens, vocab)``.
        labels: The tokens they predict, ``(answer tokens,)``.
        columns: What [`TeacherCache.collate`] gave, names without ``teacher_``.
        temperature: The softmax temperature; with `top_k` one of the cache's own.

    Raises:
        InputError: Temperature, vocabulary or answers are not those of the cache.
    """
    if not torch.equal(labels, columns["labels"]):
        raise InputError("the student's answers are not the cached teacher's: build the cache from these records.")
    if "logits" in columns:
        return distillation_kl(logits, columns["logits"], None, temperature)
    check_temperatures(columns, [temperature])
    if columns["vocabulary"] != logits.shape[-1]:
        raise InputError(
            f"the cached teacher's vocabulary has {columns['vocabulary']} tokens, the student's {logits.shape[-1]}: "
            "their distributions can only be compared over the same tokens."
        )
    tail = columns["tail_logsumexp"][:, columns["temperatures"].index(temperature)]
    return topk_distillation_kl(logits, columns["top_values"], columns["top_indices"], tail, None, temperature)


def check_temperatures(columns: Columns, temperatures: Sequence[float]) -> None:
    """Refuse a cache that does not serve all `temperatures`.

    Args:
        columns: What [`TeacherCache.collate`] gave, names without ``teacher_``.
        temperatures: What a run visits.

    Raises:
        InputError: Some logits were left out, and the weight of these is not known at one of the temperatures.
    """
    missing = [t for t in temperatures if t not in columns.get("temperatures", temperatures)]
    if missing:
        raise InputError(
            f"the run's temperature is {missing[0]}, the teacher cache was made for {columns['temperatures']}: build "
            "another cache for all that ContextDistillationConfig.temperatures gives; one with top_k=None serves any."
        )


def _check_key(directory: Path, key: dict[str, Any]) -> None:
    remedy = "choose another folder for the cache, or remove it."
    if not (directory / KEY).is_file():
        if any(directory.glob(PATTERN)):
            raise InputError(f"{directory}: holds .safetensors files and no {KEY} that tells what made them: {remedy}")
        return
    found, asked = json.loads((directory / KEY).read_text(encoding="utf-8")), json.loads(json.dumps(key))
    differing = [
        f"{name} was {found.get(name)!r}, is {asked.get(name)!r}"
        for name in sorted({*found, *asked})
        if name not in found or name not in asked or found[name] != asked[name]
    ]
    if differing:
        raise InputError(f"{directory}: is the cache of another teacher or prompt ({'; '.join(differing)}): {remedy}")


def _waiting(
    records: Records, collator: DataCollatorForContextDistillation, places: dict[str, Place], directory: Path
) -> list[dict[str, Any]]:
    """The records still to be computed, the longest first: what does not fit into memory fails at once."""
    waiting: dict[str, dict[str, Any]] = {}
    digests = {identifier: place.digest for identifier, place in places.items()}
    for record in records:
        identifier = record["id"]
        digest = text_fingerprint(collator.teacher_texts(record))
        if digests.setdefault(identifier, digest) != digest:
            raise InputError(
                f"record {identifier}: its question, target or context is not what the teacher cache {directory} holds "
                "under this id: choose another folder for the cache, or give the record its own id."
            )
        if identifier not in places:
            waiting[identifier] = record
    return sorted(waiting.values(), key=lambda record: -sum(map(len, collator.teacher_texts(record))))


@torch.no_grad()
def _answer_rows(
    teacher: nn.Module, collator: DataCollatorForContextDistillation, records: Records, key: dict[str, Any]
) -> tuple[list[Entry], dict[str, Tensor]]:
    """The teacher's answer tokens of a batch: how many each record has, and the rows of them all."""
    inputs = collator.teacher_inputs(records)
    counts = (inputs["labels"] != IGNORE_INDEX).sum(dim=1).tolist()
    entries = [Entry(r["id"], text_fingerprint(collator.teacher_texts(r)), n) for r, n in zip(records, counts)]
    device = next(teacher.parameters()).device
    logits, labels = answer_logits(teacher.eval(), {name: value.to(device) for name, value in inputs.items()})
    if key["top_k"] is None:
        rows = {"labels": labels, "logits": logits}
    else:
        record = topk_record(logits, key["top_k"], key["temperatures"])
        rows = {"labels": labels, **record._asdict(), "top_indices": record.top_indices.int()}
    return entries, {name: value.cpu() for name, value in rows.items()}
