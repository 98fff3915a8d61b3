"""Long maps over records, on one process or several, which continue after a stop."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aag_hf.data.files import read_rows
from aag_hf.data.jsonl import write_rows
from aag_hf.data.progress import write_output
from aag_hf.data.records import check_record
from aag_hf.data.reporting import Reporting
from aag_hf.errors import InputError
from aag_hf.manifest import MANIFEST, Manifest

if TYPE_CHECKING:
    from accelerate import PartialState

Records = Sequence[dict[str, Any]]


def map_records(
    records: Records,
    transform: Callable[[list[dict[str, Any]]], list[dict[str, Any]]],
    output: Path,
    made_by: Manifest,
    *,
    batch_size: int,
    description: str,
    processes: "PartialState | None" = None,
) -> None:
    """Apply `transform` to batches of records, and write the results to `output` in the order of the records.

    Each batch becomes a file in the folder ``<output>.partial``, complete or absent. A rerun makes those that are
    missing, on any number of processes. `output` and its manifest appear when all are there. Batches depend only on the
    records, so neither processes nor stops change the result.

    Args:
        records: The input; ids are unique.
        transform: Takes some records and returns as many, with the same ids in the same order.
        output: The file to write, ``.jsonl``, ``.jsonl.gz`` or ``.parquet``.
        made_by: The manifest: the input, and everything that `transform` depends on.
        batch_size: Records per call of `transform`.
        description: The text of the progress bar.
        processes: The processes that share the work. Each must have the same records. The first one writes the output.

    Raises:
        InputError: The remains of a stopped run were made from something else.
    """
    index, count = (processes.process_index, processes.num_processes) if processes else (0, 1)
    folder = output.with_name(f"{output.name}.partial")
    starts = range(0, len(records), batch_size)
    _check(folder, made_by)
    _wait(processes)
    done = sum(file.exists() for file in map(_shard(folder), starts))
    with Reporting(description, len(records), done * batch_size, shown=index == 0) as reporting:
        for start in starts[index::count]:
            shard = _shard(folder)(start)
            if shard.exists():
                continue
            batch = [records[place] for place in range(start, min(start + batch_size, len(records)))]
            results = transform(batch)
            if [result["id"] for result in results] != [record["id"] for record in batch]:
                raise ValueError("transform changed the ids of its batch: return one record for each, in order.")
            for result in results:
                check_record(result, f"{description}: record {result['id']!r}", need_answers=False)
            # Written with the first batch, so that a run that fails at once leaves nothing behind.
            if not (folder / MANIFEST).exists():
                made_by.write(folder / MANIFEST)
            write_rows(results, shard)
            reporting.reach(min(len(list(folder.glob("*.jsonl"))) * batch_size, len(records)))
    _wait(processes)
    if index == 0:
        write_output(_rows(folder, starts), output, made_by)
        shutil.rmtree(folder, ignore_errors=True)
    _wait(processes)


def _shard(folder: Path) -> Callable[[int], Path]:
    return lambda start: folder / f"{start:010d}.jsonl"


def _rows(folder: Path, starts: range) -> Iterator[dict[str, Any]]:
    for start in starts:
        for _, row in read_rows(_shard(folder)(start)):
            yield row


def _check(folder: Path, made_by: Manifest) -> None:
    if (folder / MANIFEST).is_file():
        made_by.check(Manifest.read(folder / MANIFEST), folder, resuming=True)
    elif folder.exists() and (not folder.is_dir() or any(folder.glob("[!.]*"))):
        raise InputError(f"{folder}: does not tell what made it: remove it, or pass --overwrite true to start anew.")


def _wait(processes: "PartialState | None") -> None:
    if processes is not None:
        processes.wait_for_everyone()
