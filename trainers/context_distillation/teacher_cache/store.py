"""The folder of a teacher cache: its key, and files of tensors by record, each complete or absent."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from aag_hf.data.jsonl import write_whole
from aag_hf.errors import InputError
from aag_hf.manifest import differences, read_object
from aag_hf.trainers.context_distillation.aligned_terms import Layers

KEY = "key.json"
REMEDY = "choose another folder for the cache, or remove it."
_PATTERN = "*.safetensors"
# The length of a digest.
DIGITS = 16


@dataclass(frozen=True)
class Kept:
    """What a cache keeps of a teacher, as its key tells.

    Args:
        vocabulary: The number of tokens that the teacher knows.
        top_k: How many logits per answer token. ``None`` if all.
        temperatures: Those that these logits serve. ``None`` if any.
        states: The names of the kinds of states, ``<place>_<term>``.
        layers: The layers of the states. ``None`` if there are no states.
    """

    vocabulary: int
    top_k: int | None
    temperatures: list[float] | None
    states: list[str]
    layers: Layers | None

    @classmethod
    def of(cls, key: dict[str, Any], directory: Path) -> "Kept":
        """Take it from the key of a cache.

        Raises:
            InputError: The key is damaged.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(key.get("states"), list) or not key.keys() >= set(names):
            raise InputError(f"{directory / KEY}: damaged, does not tell what the cache holds: {REMEDY}")
        return cls(**{name: key[name] for name in names})


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


def text_digest(value: object) -> str:
    """Equal for equal JSON values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:DIGITS]


def read_key(directory: Path) -> dict[str, Any]:
    """Everything besides the records on which the cache in `directory` depends.

    Raises:
        InputError: There is no cache, or its key is damaged.
    """
    if not (directory / KEY).is_file():
        raise InputError(f"{directory}: has no {KEY}: make a teacher cache there with TeacherCache.build.")
    return read_object(directory / KEY)


def check_key(directory: Path, key: dict[str, Any]) -> None:
    """Refuse a folder that holds the cache of another key.

    Raises:
        InputError: It does; the message names the differences.
    """
    if not (directory / KEY).is_file():
        if any(directory.glob(_PATTERN)):
            raise InputError(f"{directory}: holds .safetensors files and no {KEY} that tells what made them: {REMEDY}")
        return
    told = differences(read_object(directory / KEY), json.loads(json.dumps(key)))
    if told:
        raise InputError(f"{directory}: is the cache of another teacher or prompt ({'; '.join(told)}): {REMEDY}")


def write_rows(directory: Path, entries: Sequence[Entry], batches: Sequence[dict[str, Tensor]]) -> None:
    """Write one more file of records.

    Args:
        directory: The folder.
        entries: The records, in the order of their rows.
        batches: Tensors ``(rows, …)`` by name, which are joined.
    """
    tensors = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    # The name comes from the content, so two programs that write at once never overwrite each other's records.
    file = directory / f"{text_digest(entries)}.safetensors"
    write_whole(save(tensors, {"records": json.dumps(entries)}), file)


def list_rows(directory: Path) -> dict[str, Place]:
    """The place of every record in the folder, by id.

    Raises:
        InputError: A file is damaged.
    """
    places: dict[str, Place] = {}
    for file in sorted(directory.glob(_PATTERN)):
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
