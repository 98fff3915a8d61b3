"""Rows of tensors by record, in safetensors files. Each is complete or absent, and lists its records."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from aag_hf.data.jsonl import write_whole
from aag_hf.errors import InputError
from aag_hf.trainers.context_distillation.fingerprints import text_fingerprint

PATTERN = "*.safetensors"


class Entry(NamedTuple):
    """A record in the list of a file: its id, a digest of its texts, and the number of its rows."""

    identifier: str
    digest: str
    rows: int


class Place(NamedTuple):
    """The place of a record's rows, ``start`` to ``end`` of a file, and the digest of the texts they were made from."""

    file: Path
    start: int
    end: int
    digest: str


def write_rows(directory: Path, entries: Sequence[Entry], batches: Sequence[dict[str, Tensor]]) -> None:
    """Write one more file of records.

    Args:
        directory: The folder.
        entries: The records, in the order of their rows.
        batches: Tensors ``(rows, …)`` by name, which are joined.
    """
    tensors = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    # The name comes from the content, so two programs that write at once never overwrite each other's records.
    file = directory / f"{text_fingerprint(entries)}.safetensors"
    write_whole(save(tensors, {"records": json.dumps(entries)}), file)


def list_rows(directory: Path) -> dict[str, Place]:
    """The place of every record in the folder, by id.

    Raises:
        InputError: A file is damaged.
    """
    places: dict[str, Place] = {}
    for file in sorted(directory.glob(PATTERN)):
        try:
            with safe_open(file, "pt") as tensors:
                metadata = tensors.metadata() or {}
        except SafetensorError as error:
            raise InputError(f"{file}: damaged ({error}): remove it, and it will be computed again.") from None
        start = 0
        for identifier, digest, rows in json.loads(metadata.get("records", "[]")):
            places[identifier] = Place(file, start, start + rows, digest)
            start += rows
    return places


def read_rows(place: Place) -> dict[str, Tensor]:
    """The tensors ``(rows, …)`` of one record, by name.

    The file is opened per record, since it may be larger than memory and other processes of a data loader read it too.
    """
    with safe_open(place.file, "pt") as tensors:
        names = tensors.keys()
        return {name: tensors.get_slice(name)[place.start : place.end] for name in names}
