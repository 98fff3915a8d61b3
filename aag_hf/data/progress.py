"""Outputs that grow row by row, with their manifests."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from aag_hf.data.jsonl import encode_row, write_rows
from aag_hf.errors import InputError
from aag_hf.manifest import MANIFEST, Manifest


class PartialOutput:
    """The rows of an unfinished output, in ``<output>.partial``. The first line is the output's manifest.

    Args:
        output: The file that will be written.
        made_by: Its manifest.
    """

    def __init__(self, output: Path, made_by: Manifest):
        self.output = output
        self.path = output.with_name(f"{output.name}.partial")
        self.made_by = made_by
        self._end = 0

    def read(self) -> list[Any]:
        """The rows so far, without an unfinished last line.

        Raises:
            InputError: They were made from something else, or are damaged.
        """
        data = self.path.read_bytes() if self.path.exists() else b""
        self._end = data.rfind(b"\n") + 1
        if not self._end:
            return []
        try:
            header, *rows = map(json.loads, data[: self._end].splitlines())
        except (ValueError, RecursionError):
            raise InputError(f"{self.path}: damaged: delete it to start again.") from None
        self.made_by.check(Manifest.parse(header, self.path), self.path, resuming=True)
        return rows

    def append(self, rows: Sequence[Any]) -> None:
        """Add rows to those read and appended before."""
        # Written with the first rows, so that a run that fails at once leaves nothing behind.
        header = [] if self._end else [encode_row(self.made_by.to_json())]
        with self.path.open("r+b" if self._end else "wb") as file:
            file.truncate(self._end)
            file.seek(self._end)
            file.write(b"".join([*header, *map(encode_row, rows)]))
            self._end = file.tell()

    def finish(self, write: Callable[[], None]) -> None:
        """Write the manifest, then the output with `write`. So an output never exists without its manifest."""
        self.made_by.write(_manifest_beside(self.output))
        write()
        self.path.unlink(missing_ok=True)


def write_output(rows: Iterable[Any], output: Path, made_by: Manifest) -> None:
    """Write the manifest and the rows of `output`. The manifest exists whenever the output does."""
    write_rows(rows, output, before=lambda: made_by.write(_manifest_beside(output)))


def _manifest_beside(output: Path) -> Path:
    return output.with_name(f"{output.name}.{MANIFEST}")
