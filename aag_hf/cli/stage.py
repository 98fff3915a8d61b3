"""Finished stages are not redone, and an output folder appears only when it is complete."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aag_hf.errors import InputError

SETTINGS = "settings.json"


def file_digest(path: str | Path) -> str:
    """What a file holds, as a short string."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def is_finished(output_dir: Path, settings: dict[str, Any]) -> bool:
    """Whether `output_dir` was completed with these settings.

    Raises:
        InputError: It exists with other settings, or is no output of this program.
    """
    if not output_dir.exists():
        return False
    record = output_dir / SETTINGS
    if not record.is_file():
        if output_dir.is_dir() and not any(output_dir.iterdir()):
            return False
        raise InputError(f"{output_dir}: exists and has no {SETTINGS}: choose another output_dir, or remove it.")
    before = json.loads(record.read_text(encoding="utf-8"))
    now = json.loads(json.dumps(settings))
    changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    if changed:
        differences = "; ".join(f"{name} was {before.get(name)!r}, is {now.get(name)!r}" for name in changed)
        raise InputError(f"{output_dir}: holds another run ({differences}): choose another output_dir, or remove it.")
    return True


@contextmanager
def new_directory(output_dir: Path, settings: dict[str, Any]) -> Iterator[Path]:
    """A folder to write to, which becomes `output_dir`, with its settings inside, when the block ends without error."""
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    partial = output_dir.with_name(f".{output_dir.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        (partial / SETTINGS).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        if output_dir.is_dir():
            output_dir.rmdir()
        os.replace(partial, output_dir)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
