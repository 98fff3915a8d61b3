"""Records on disk, read through a memory map. They take no memory, and processes share them."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, overload

from huggingface_hub.constants import HF_HOME
from huggingface_hub.utils import WeakFileLock

from aag_hf.contents import content_of
from aag_hf.data.files import file_stem
from aag_hf.data.jsonl import encode_row, written_whole
from aag_hf.data.records import iter_records, read_records
from aag_hf.errors import InputError
from aag_hf.extras import optional
from aag_hf.manifest import current_versions

# Files up to this size stay lists; those in gzip up to a quarter of it.
IN_MEMORY = 16 * 2**20
# Bytes of records per write.
_CHUNK = 2**22
_FORMAT = 1


class LazyRecords(Sequence[dict[str, Any]]):
    """Records of which each is made when it is asked for."""

    def record(self, place: int) -> dict[str, Any]:
        """The record at a place."""
        raise NotImplementedError

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, place: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, place: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        return self.record(place)


class MappedRecords(LazyRecords):
    """Records in an Arrow file with one column, `record`, of JSON texts.

    Args:
        path: A file that `open_records` wrote.

    Raises:
        InputError: The file is damaged. Reading a record raises the same.
    """

    def __init__(self, path: Path):
        with optional():
            import pyarrow

        self.path = path
        with self._whole(), pyarrow.memory_map(str(path)) as file:
            self._column = pyarrow.ipc.open_file(file).read_all().column("record")

    def __len__(self) -> int:
        return len(self._column)

    def record(self, place: int) -> dict[str, Any]:
        text = self._column[place]
        with self._whole():
            return json.loads(text.as_py())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        import pyarrow

        # Read and not mapped: pages of a map that a pass has touched would count as this process's memory.
        with self._whole(), pyarrow.OSFile(str(self.path)) as file:
            reader = pyarrow.ipc.open_file(file)
            for number in range(reader.num_record_batches):
                for text in reader.get_batch(number).column("record"):
                    yield json.loads(text.as_py())

    @contextmanager
    def _whole(self) -> Iterator[None]:
        import pyarrow

        try:
            yield
        except (pyarrow.ArrowException, OSError, ValueError, KeyError) as error:
            # An error of the system names the file itself.
            if isinstance(error, InputError) or getattr(error, "filename", None):
                raise
            raise InputError(f"{self.path}: damaged ({error}): delete it, and it is made anew.") from None

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return MappedRecords, (self.path,)


def open_records(
    source: str | os.PathLike[str],
    split: str | None = None,
    *,
    need_answers: bool = True,
    skip_bad: int = 0,
) -> Sequence[dict[str, Any]]:
    """The records of [`~aag_hf.data.read_records`]: as a list if they are few, else as a memory map.

    The map is an Arrow file in ``$HF_HOME/aag-hf/records``. One process writes it, once per content, while others wait.

    Args:
        source: A file, a folder, or the id of a data set on the Hub.
        split: As in `read_records`.
        need_answers: As there.
        skip_bad: As there.

    Raises:
        InputError: As there.
    """
    path = Path(source)
    if not path.exists() or _size(path) <= IN_MEMORY:
        return read_records(source, split, need_answers=need_answers, skip_bad=skip_bad)
    # The name is part of the identifiers of records that have none.
    key = [_FORMAT, current_versions()["aag-hf"], content_of(path), file_stem(path), split, need_answers, skip_bad]
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    mapped = Path(HF_HOME) / "aag-hf" / "records" / f"{name}.arrow"
    mapped.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(mapped.with_suffix(".lock")):
        if mapped.exists():
            # A damaged one is made anew.
            with suppress(InputError):
                return MappedRecords(mapped)
        _write(iter_records(source, split, need_answers=need_answers, skip_bad=skip_bad), mapped)
    return MappedRecords(mapped)


class WithFeatures(LazyRecords):
    """Records whose features are kept in one array beside them.

    Args:
        records: The records.
        features: The features of each, ``(records, feature_dim)``.
    """

    def __init__(self, records: Sequence[dict[str, Any]], features: Any):
        self.records = records
        self.features = features

    def __len__(self) -> int:
        return len(self.records)

    def record(self, place: int) -> dict[str, Any]:
        return {**self.records[place], "features": self.features[place].tolist()}


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder. Those in gzip count four times."""
    files = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
    return sum(file.stat().st_size * (4 if file.suffix == ".gz" else 1) for file in files)


def _write(records: Iterator[dict[str, Any]], path: Path) -> None:
    import pyarrow

    column = pyarrow.schema([("record", pyarrow.binary())])
    with written_whole(path) as file, pyarrow.ipc.new_file(file, column) as writer:
        texts: list[bytes] = []
        size = 0
        for record in records:
            texts.append(encode_row(record))
            size += len(texts[-1])
            if size > _CHUNK:
                writer.write(pyarrow.record_batch([texts], schema=column))
                texts, size = [], 0
        if texts:
            writer.write(pyarrow.record_batch([texts], schema=column))
