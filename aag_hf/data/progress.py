"""Outputs that grow row by row, and what made them."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from aag_hf.data.jsonl import encode_row, write_rows
from aag_hf.errors import InputError
from aag_hf.manifest import MANIFEST, Manifest


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
