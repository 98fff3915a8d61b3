"""A frozen teacher's logits and states, computed once for every epoch and every student."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from aag_hf.collators.padding import IGNORE_INDEX
from aag_hf.data.jsonl import write_whole
from aag_hf.errors import InputError
from aag_hf.manifest import differences, read_object
from aag_hf.trainers.answer_logits import answer_outputs, is_encoder_decoder
from aag_hf.trainers.context_distillation.aligned_terms import Reading, check_returns_states, states_to_return
from aag_hf.trainers.context_distillation.alignment import Layers
from aag_hf.trainers.context_distillation.cached_states import PLACES, batch_states, state_rows
from aag_hf.trainers.context_distillation.fingerprints import (
    text_fingerprint,
    tokenizer_fingerprint,
    weights_fingerprint,
)
from aag_hf.trainers.context_distillation.losses import topk_record
from aag_hf.trainers.context_distillation.row_files import PATTERN, Entry, Place, list_rows, read_rows, write_rows

if TYPE_CHECKING:
    from accelerate import PartialState

    from aag_hf.collators import DataCollatorForContextDistillation

Records = Sequence[dict[str, Any]]
Columns = dict[str, Any]

KEY = "key.json"
REMEDY = "choose another folder for the cache, or remove it."
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
        if not (self.directory / KEY).is_file():
            raise InputError(f"{directory}: has no {KEY}: make a teacher cache there with TeacherCache.build.")
        self.key: dict[str, Any] = read_object(self.directory / KEY)
        if not isinstance(self.key.get("states"), list) or "top_k" not in self.key:
            raise InputError(f"{self.directory / KEY}: damaged, does not tell what the cache holds: {REMEDY}")
        self._places = list_rows(self.directory)
        self._state_places = {name: list_rows(self.directory / name) for name in self.key["states"]}

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

        if collator.teacher is None:
            raise InputError("the collator has no teacher: say what it reads, with a ReaderPrompt.")
        if top_k is not None and top_k < 1:
            raise InputError(f"top_k is {top_k}: keep at least 1 logit, or None for all.")
        check_returns_states(teacher, aligned, "teacher")
        places = PLACES if is_encoder_decoder(teacher) else PLACES[:1]
        temperatures = list(temperature) if isinstance(temperature, Sequence) else [temperature]
        key = {
            **key,
            **collator.teacher_reading(),
            "tokenizer": tokenizer_fingerprint(collator.tokenizer),
            "weights": weights_fingerprint(teacher),
            "vocabulary": teacher.config.get_text_config().vocab_size,
            "top_k": top_k,
            "temperatures": None if top_k is None else temperatures,
            "states": [f"{place}_{name}" for name in sorted(aligned) for place in places],
            "layers": layers if aligned else None,
        }
        directory = Path(directory)
        _check_key(directory, key)
        known = cls(directory)._places if (directory / KEY).is_file() else {}
        waiting = _waiting(records, collator, known, directory, BATCHES_PER_FILE * batch_size)
        index, count = (processes.process_index, processes.num_processes) if processes else (0, 1)
        # No process may write before all have seen the existing files.
        _wait(processes)
        own = [file for file in waiting[index::count] if file]
        is_silent = index > 0 or not own
        for numbers in track(own, "Teacher", console=Console(stderr=True), transient=True, disable=is_silent):
            group = [records[number] for number in numbers]
            batches = [group[i : i + batch_size] for i in range(0, len(group), batch_size)]
            entries, rows, states = zip(*(_rows_of(teacher, collator, batch, key, aligned) for batch in batches))
            # The key is written first, so no file exists without it. Logits are written last, since they make a record
            # known.
            write_whole((json.dumps(key, indent=2) + "\n").encode(), directory / KEY)
            known_entries = [entry for batch in entries for entry in batch]
            for name in key["states"]:
                tensors = [tensor for batch in states for tensor in batch[name]]
                counted = [entry._replace(rows=len(tensor)) for entry, tensor in zip(known_entries, tensors)]
                write_rows(directory / name, counted, [{"states": tensor} for tensor in tensors])
            write_rows(directory, known_entries, rows)
        _wait(processes)
        return cls(directory)

    def collate(self, records: Records) -> Columns:
        """The columns of a batch. Their rows have the order of the student's rows in `answer_logits`.

        Returns:
            `teacher_labels` ``(answer tokens,)``, and `teacher_logits` ``(answer tokens, vocab)`` or else
            `teacher_top_values` and `teacher_top_indices` ``(answer tokens, k)``, `teacher_tail_logsumexp`
            ``(answer tokens, temperatures)``, the list of `teacher_temperatures` and the size of `teacher_vocabulary`;
            for each kind of states the result of [`~.cached_states.batch_states`] and its `teacher_layers`.

        Raises:
            InputError: A record is not in the cache; the message names it.
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
        for name, places in self._state_places.items():
            states = [read_rows(places[record["id"]])["states"] for record in records]
            columns[f"teacher_{name}"], columns[f"teacher_{name}_mask"] = batch_states(states, name.partition("_")[2])
            columns["teacher_layers"] = self.key["layers"]
        return columns


def _check_key(directory: Path, key: dict[str, Any]) -> None:
    if not (directory / KEY).is_file():
        if any(directory.glob(PATTERN)):
            raise InputError(f"{directory}: holds .safetensors files and no {KEY} that tells what made them: {REMEDY}")
        return
    told = differences(read_object(directory / KEY), json.loads(json.dumps(key)))
    if told:
        raise InputError(f"{directory}: is the cache of another teacher or prompt ({'; '.join(told)}): {REMEDY}")


def _waiting(
    records: Records,
    collator: DataCollatorForContextDistillation,
    places: dict[str, Place],
    directory: Path,
    size: int,
) -> list[list[int]]:
    """The places of the records to compute, one list per file. The longest come first: what does not fit fails at once.

    The list of a complete file is empty. The file of a record depends on all records, not only on those that are
    missing. So a stopped build continues with the same files, on any number of processes.
    """
    lengths: dict[str, tuple[int, int]] = {}
    digests = {identifier: place.digest for identifier, place in places.items()}
    for number, record in enumerate(records):
        identifier = record["id"]
        texts = collator.teacher_texts(record)
        digest = text_fingerprint(texts)
        if digests.setdefault(identifier, digest) != digest:
            raise InputError(
                f"record {identifier}: its question, target or context is not what the teacher cache {directory} holds "
                "under this id: choose another folder for the cache, or give the record its own id."
            )
        lengths[identifier] = (-sum(map(len, texts)), number)
    ordered = sorted(lengths, key=lambda identifier: lengths[identifier][0])
    files = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    return [[lengths[identifier][1] for identifier in file if identifier not in places] for file in files]


def _wait(processes: PartialState | None) -> None:
    if processes is not None:
        processes.wait_for_everyone()


@torch.no_grad()
def _rows_of(
    teacher: nn.Module,
    collator: DataCollatorForContextDistillation,
    records: Records,
    key: dict[str, Any],
    aligned: Collection[str],
) -> tuple[list[Entry], dict[str, Tensor], dict[str, list[Tensor]]]:
    """The records of a batch with their numbers of answer tokens, the rows of all, and the states of each."""
    inputs = collator.teacher_inputs(records)
    counts = (inputs["labels"] != IGNORE_INDEX).sum(dim=1).tolist()
    entries = [Entry(r["id"], text_fingerprint(collator.teacher_texts(r)), n) for r, n in zip(records, counts)]
    device = next(teacher.parameters()).device
    inputs = {name: value.to(device) for name, value in inputs.items()}
    logits, labels, states = answer_outputs(teacher.eval(), inputs | states_to_return(aligned))
    if key["top_k"] is None:
        rows = {"labels": labels, "logits": logits}
    else:
        record = topk_record(logits, key["top_k"], key["temperatures"])
        rows = {"labels": labels, **record._asdict(), "top_indices": record.top_indices.int()}
    kept = state_rows(Reading(inputs, states), aligned, key["layers"]) if aligned else {}
    return (
        entries,
        {name: value.cpu() for name, value in rows.items()},
        {name: [tensor.cpu() for tensor in tensors] for name, tensors in kept.items()},
    )
