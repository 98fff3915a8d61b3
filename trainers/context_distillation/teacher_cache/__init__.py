"""A frozen teacher's logits and states, computed once for every epoch and every student."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from aag_hf.errors import InputError
from aag_hf.trainers.context_distillation.aligned_terms import Layers
from aag_hf.trainers.context_distillation.teacher_cache.build import Recorder, Records
from aag_hf.trainers.context_distillation.teacher_cache.columns import CachedColumns, batch_states
from aag_hf.trainers.context_distillation.teacher_cache.store import (
    KEY,
    Kept,
    check_key,
    list_rows,
    read_key,
    read_rows,
)

if TYPE_CHECKING:
    from accelerate import PartialState

    from aag_hf.collators import DataCollatorForContextDistillation

# A file is complete or absent. A stopped build loses at most this many batches, and no more are held in memory.
BATCHES_PER_FILE = 16


class TeacherCache:
    """A teacher's logits at the answer tokens of records, by the records' ids, and the states that alignment needs.

    The folder holds ``key.json``, with everything besides the records on which the logits depend, and ``.safetensors``
    files, each with the rows of some records and their list. A file appears only when it is complete. Each kind of
    states has a folder of such files. `collate` reads only the rows that it needs.

    Args:
        directory: A folder that [`TeacherCache.build`] made.

    Raises:
        InputError: The folder is not a cache, or one of its files is damaged.

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
        self.key: dict[str, Any] = read_key(self.directory)
        self._kept = Kept.of(self.key, self.directory)
        self._places = list_rows(self.directory)
        self._state_places = {kind: list_rows(self.directory / kind) for kind in self._kept.states}

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
        aligned: Collection[str] = (),
        layers: Layers = "all",
        batch_size: int = 32,
        processes: PartialState | None = None,
    ) -> TeacherCache:
        """Run the teacher over those of `records` that the cache in `directory` lacks, and open it.

        The teacher's weights, the tokenizer and the prompts are always part of the cache's key.

        Args:
            teacher: A causal or encoder-decoder model. It runs on its device, in evaluation mode.
            collator: The collator of the student's training, with a `teacher`.
            records: The records of the student's batches.
            directory: The cache's folder. Others may be using it.
            key: Names of things as the user knows them, as plain JSON values. They tell a difference better than
                digests do.
            top_k: How many logits per token to keep, beside the weight of the others. ``None`` keeps all, in the
                teacher's type.
            temperature: The temperature of the training, or all of a schedule, as
                [`ContextDistillationConfig.temperatures`] gives them. If all logits are kept, they serve any
                temperature.
            aligned: The alignment terms to keep states for, as [`ContextDistillationConfig.alignment_weights`] names
                them. They serve the alignment ``"question"`` only, since ``"position"`` would need every token of each
                passage.
            layers: The layers whose states to keep.
            batch_size: Records per forward pass.
            processes: The processes that share the work, each with the whole teacher and all records.

        Raises:
            InputError: The folder was made from another key or another text of a record, which the message names;
                `top_k` or `temperature` is out of range; the collator has no `teacher`; or the teacher's states cannot
                be read.
        """
        # Imported here, so that training itself does not need rich.
        from rich.console import Console
        from rich.progress import track

        recorder = Recorder.of(teacher, collator, top_k, temperature, aligned, layers)
        key = recorder.key(key)
        directory = Path(directory)
        check_key(directory, key)
        known = list_rows(directory) if (directory / KEY).is_file() else {}
        waiting = recorder.waiting(records, known, directory, BATCHES_PER_FILE * batch_size)
        index, count = (processes.process_index, processes.num_processes) if processes else (0, 1)
        # No process may write before all have seen the existing files.
        _wait(processes)
        own = [file for file in waiting[index::count] if file]
        is_silent = index > 0 or not own
        for numbers in track(own, "Teacher", console=Console(stderr=True), transient=True, disable=is_silent):
            recorder.write_file([records[number] for number in numbers], directory, key, batch_size)
        _wait(processes)
        return cls(directory)

    def collate(self, records: Records) -> dict[str, Any]:
        """The columns of a batch, those of [`CachedColumns`] with ``teacher_`` before their names.

        Raises:
            InputError: A record is not in the cache; the message names it.
        """
        for record in records:
            if record["id"] not in self._places:
                raise InputError(
                    f"record {record['id']}: not in the teacher cache {self.directory}: build it for all records."
                )
        rows = [read_rows(self._places[record["id"]]) for record in records]
        columns = CachedColumns(**{name: torch.cat([row[name] for row in rows]) for name in rows[0]})
        if columns.top_indices is not None:
            columns.top_indices = columns.top_indices.long()
            columns.temperatures, columns.vocabulary = self._kept.temperatures, self._kept.vocabulary
        columns.layers = self._kept.layers
        for kind, places in self._state_places.items():
            states = [read_rows(places[record["id"]])["states"] for record in records]
            columns.states[kind], columns.states[f"{kind}_mask"] = batch_states(states, kind.partition("_")[2])
        return columns.to_batch()


def _wait(processes: PartialState | None) -> None:
    if processes is not None:
        processes.wait_for_everyone()
