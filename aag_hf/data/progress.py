"""Long maps over records that survive being stopped."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from aag_hf.data.jsonl import encode_row, write_whole
from aag_hf.data.records import read_records, write_records
from aag_hf.errors import InputError

Records = list[dict[str, Any]]


def resume_map(
    records: Sequence[dict[str, Any]],
    transform: Callable[[Records], Records],
    output: str | os.PathLike[str],
    *,
    settings: dict[str, Any],
    batch_size: int,
    description: str,
) -> Records:
    """Apply `transform` to batches of records, keeping finished ones on disk.

    Finished batches go to ``<output>.partial``; a rerun continues after them. `output` and ``<output>.settings.json``
    appear when all records are done. An output of the same settings and input is returned without work.

    Args:
        records: The input; ids are unique.
        transform: Takes a list of records and returns as many, with the same ids in the same order.
        output: The file to write, ``.jsonl`` or ``.jsonl.gz``.
        settings: Everything that `transform` depends on, as plain JSON values.
        batch_size: Records a call of `transform`.
        description: What the progress bar says.

    Raises:
        InputError: `output`, or what a stopped run left of it, belongs to other settings or other input.
    """
    output = Path(output)
    made_by = json.loads(json.dumps({"settings": settings, "input_digest": _digest(records)}))
    settings_file = output.with_name(output.name + ".settings.json")
    if output.exists():
        _check_same(made_by, _read_json(settings_file), output)
        return read_records(output)
    partial = output.with_name(output.name + ".partial")
    finished = _read_partial(partial, made_by)
    waiting = [record for record in records if record["id"] not in finished]
    with _progress_bar() as progress:
        task = progress.add_task(description, total=len(records), completed=len(records) - len(waiting))
        for start in range(0, len(waiting), batch_size):
            batch = waiting[start : start + batch_size]
            lines = _transform_batch(transform, batch)
            _append(partial, made_by, lines)
            finished.update((record["id"], json.loads(line)) for record, line in zip(batch, lines, strict=True))
            progress.advance(task, len(batch))
    results = [finished[record["id"]] for record in records]
    # The settings come first: an output that exists is never without them.
    write_whole(json.dumps(made_by, indent=2).encode(), settings_file)
    write_records(results, output)
    partial.unlink(missing_ok=True)
    return results


def _transform_batch(transform: Callable[[Records], Records], batch: Records) -> list[bytes]:
    results = transform(batch)
    if [result["id"] for result in results] != [record["id"] for record in batch]:
        raise ValueError("transform changed the ids of its batch: return one record for each, in order.")
    return [encode_row(result) for result in results]


def _append(partial: Path, made_by: dict[str, Any], lines: list[bytes]) -> None:
    with partial.open("ab") as file:
        # With the first batch, not before it: a run that fails at once leaves nothing behind.
        header = [] if file.tell() else [encode_row(made_by)]
        file.write(b"".join([*header, *lines]))


def _digest(records: Sequence[dict[str, Any]]) -> str:
    digest = hashlib.sha256()
    for record in records:
        digest.update(json.dumps(record, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _read_partial(partial: Path, made_by: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Records of a stopped run by id; a last line without its end is cut off the file."""
    partial.parent.mkdir(parents=True, exist_ok=True)
    data = partial.read_bytes() if partial.exists() else b""
    whole = data[: data.rfind(b"\n") + 1]
    if not whole:
        partial.unlink(missing_ok=True)
        return {}
    header, *lines = whole.splitlines()
    try:
        begun_by, rows = json.loads(header), [json.loads(line) for line in lines]
    except json.JSONDecodeError:
        raise InputError(f"{partial}: damaged: delete it to start again.") from None
    _check_same(made_by, begun_by, partial)
    with partial.open("r+b") as file:
        file.truncate(len(whole))
    return {row["id"]: row for row in rows}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _check_same(asked: dict[str, Any], found: Any, path: Path) -> None:
    remedy = "choose another output or delete it."
    if not isinstance(found, dict) or found.keys() != asked.keys():
        raise InputError(f"{path}: exists, and nothing tells which settings made it: {remedy}")
    ours, theirs = asked["settings"], found["settings"]
    differing = [
        f"{name} (there {theirs.get(name, 'absent')!r}, asked {ours.get(name, 'absent')!r})"
        for name in sorted({*ours, *theirs})
        if name not in ours or name not in theirs or ours[name] != theirs[name]
    ]
    if differing:
        raise InputError(f"{path}: was made with other settings: {', '.join(differing)}: {remedy}")
    if asked["input_digest"] != found["input_digest"]:
        raise InputError(f"{path}: was made from other input records: {remedy}")


def _progress_bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
