"""Long maps over records that survive being stopped."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from aag_hf.data.jsonl import encode_row, write_rows
from aag_hf.data.records import write_records
from aag_hf.errors import InputError
from aag_hf.manifest import MANIFEST, Manifest

Records = list[dict[str, Any]]


class PartialOutput:
    """Rows of an output that is not finished, in ``<output>.partial``, under a first line that says what makes them.

    Args:
        output: The file to be.
        made_by: What makes it.
    """

    def __init__(self, output: Path, made_by: Manifest):
        self.output = output
        self.path = output.with_name(f"{output.name}.partial")
        self.made_by = made_by
        self._end = 0

    def read(self) -> list[Any]:
        """The rows so far; a last line without its end does not count.

        Raises:
            InputError: They were made from something else, or are damaged.
        """
        data = self.path.read_bytes() if self.path.exists() else b""
        self._end = data.rfind(b"\n") + 1
        if not self._end:
            return []
        try:
            header, *rows = map(json.loads, data[: self._end].splitlines())
        except ValueError:
            raise InputError(f"{self.path}: damaged: delete it to start again.") from None
        self.made_by.check(Manifest.parse(header, self.path), self.path, resuming=True)
        return rows

    def append(self, rows: Sequence[Any]) -> None:
        """Add rows to those read and appended before."""
        # With the first rows, not before them: a run that fails at once leaves nothing behind.
        header = [] if self._end else [encode_row(self.made_by.to_json())]
        with self.path.open("r+b" if self._end else "wb") as file:
            file.truncate(self._end)
            file.seek(self._end)
            file.write(b"".join([*header, *map(encode_row, rows)]))
            self._end = file.tell()

    def finish(self, write: Callable[[], None]) -> None:
        """Write the output with `write`, after the manifest beside it: an output that exists is never without."""
        self.made_by.write(_manifest_beside(self.output))
        write()
        self.path.unlink(missing_ok=True)


def write_output(rows: Iterable[Any], output: Path, made_by: Manifest) -> None:
    """Write rows to `output`, and the manifest beside it; whoever finds the output finds both."""
    write_rows(rows, output, before=lambda: made_by.write(_manifest_beside(output)))


def _manifest_beside(output: Path) -> Path:
    return output.with_name(f"{output.name}.{MANIFEST}")


def resume_map(
    records: Sequence[dict[str, Any]],
    transform: Callable[[Records], Records],
    output: Path,
    made_by: Manifest,
    *,
    batch_size: int,
    description: str,
) -> Records:
    """Apply `transform` to batches of records, keeping finished ones on disk.

    Finished batches go to ``<output>.partial``; a rerun continues after them. `output` and its manifest appear when all
    records are done.

    Args:
        records: The input; ids are unique.
        transform: Takes a list of records and returns as many, with the same ids in the same order.
        output: The file to write, ``.jsonl`` or ``.jsonl.gz``.
        made_by: The input, and everything that `transform` depends on.
        batch_size: Records a call of `transform`.
        description: What the progress bar says.

    Raises:
        InputError: What a stopped run left of `output` was made from something else.
    """
    partial = PartialOutput(output, made_by)
    finished = {row["id"]: row for row in partial.read()}
    waiting = [record for record in records if record["id"] not in finished]
    with _progress_bar() as progress:
        task = progress.add_task(description, total=len(records), completed=len(records) - len(waiting))
        for start in range(0, len(waiting), batch_size):
            batch = waiting[start : start + batch_size]
            results = transform(batch)
            if [result["id"] for result in results] != [record["id"] for record in batch]:
                raise ValueError("transform changed the ids of its batch: return one record for each, in order.")
            partial.append(results)
            # As they will be read again.
            finished.update((result["id"], json.loads(encode_row(result))) for result in results)
            progress.advance(task, len(batch))
    results = [finished[record["id"]] for record in records]
    partial.finish(lambda: write_records(results, output))
    return results


def _progress_bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
