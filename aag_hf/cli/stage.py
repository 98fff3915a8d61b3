"""Outputs of commands. Finished ones are reused, those of other runs are refused, and each appears only when
complete."""

import errno
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from aag_hf.cli.launcher import started_processes
from aag_hf.contents import content_of
from aag_hf.errors import InputError
from aag_hf.locks import locked, remove_leftovers, temporary_folder
from aag_hf.manifest import MANIFEST, Manifest, differences

OVERWRITE = "Replace an output, or the remains of a stopped run."
CHECKPOINTS = "checkpoints"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SIGNS_OF_NO_ROOM = ("inline_container", "PytorchStreamWriter", *map(os.strerror, _NO_ROOM))


def manifest(command: str, settings: dict[str, Any], **inputs: str | Path | Sequence[str | Path] | None) -> Manifest:
    """The manifest of a command's output.

    Args:
        command: Its name.
        settings: All settings that change the outcome.
        **inputs: Files, folders, names of the Hub, or lists of these; ``None`` is no input.

    Raises:
        InputError: An input is not there.
    """
    found = {}
    for name, value in inputs.items():
        paths = [value] if isinstance(value, (str, Path)) else value or []
        for number, path in enumerate(paths, start=1):
            key = name if isinstance(value, (str, Path)) else f"{name} {number}"
            found[key] = {"path": str(path), "content": content_of(path)}
    return Manifest({"command": command, **settings}, found)


def called(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A setting for `manifest`: how records are called. Those without ids take theirs from the name of their file,
    which is no part of its content."""
    return {"first_id": records[0]["id"]}


@contextmanager
def claimed(output: Path, made_by: Manifest, overwrite: bool = False) -> Iterator[bool]:
    """Keep other runs away from `output`, clean up after killed runs, and give whether it is finished.

    Args:
        output: A file or folder.
        made_by: The manifest of this run.
        overwrite: Replace the output, and what a stopped run left of it; see `replacing`.

    Raises:
        InputError: Another run is writing it or made it from something else, it is an input, or the disk is full.
    """
    refuse_inputs(output, made_by)
    output = real(output)
    with locked(output), _full_disk_named(output), replacing(output) if overwrite else nullcontext():
        remove_leftovers(output)
        finished = is_finished(output, made_by)
        if finished:
            print(f"{output}: finished before, with the same settings and inputs.", file=sys.stderr)
            _remove(beside(output, "partial"))
        yield finished


@contextmanager
def _full_disk_named(output: Path) -> Iterator[None]:
    """Name the output when a disk is full: torch and safetensors raise errors of their own, and Python's names no
    file."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if getattr(error, "errno", None) not in _NO_ROOM and not any(sign in str(error) for sign in _SIGNS_OF_NO_ROOM):
            raise
        raise InputError(
            f"{output}: a file could not be written whole: make room on the disk and run the command again."
        ) from error


def refuse_processes(command: str) -> None:
    """Refuse to run `command` on several processes at once, as launchers tell of them.

    Raises:
        InputError: There are several.
    """
    count = started_processes()
    if count > 1:
        raise InputError(
            f"`aag {command}` works on one process, and {count} were started: start it without a launcher."
        )


def is_finished(output: Path, made_by: Manifest | dict[str, Any]) -> bool:
    """Whether `output` is complete and has the same manifest; `made_by` may be its settings alone.

    Raises:
        InputError: It was made from something else, or is no output of this program.
    """
    if not output.exists():
        return False
    path = _manifest_of(output)
    if not path.is_file():
        if output.is_dir() and not any(output.iterdir()):
            return False
        raise InputError(
            f"{output}: exists, and no {path.name} tells what made it: choose another output, or remove it."
        )
    made_by, found = _as_manifest(made_by), Manifest.read(path)
    made_by.check(found, output)
    if other := differences(found.versions, made_by.versions):
        print(f"{output}: was made with other versions ({'; '.join(other)}).", file=sys.stderr)
    return True


@contextmanager
def new_directory(output_dir: Path, made_by: Manifest | dict[str, Any]) -> Iterator[Path]:
    """A folder to write to. When the block ends without error, it gets its manifest and becomes `output_dir`.

    If two runs make the same at once, the folder of the first to end stays.
    """
    made_by, output_dir = _as_manifest(made_by), real(output_dir)
    with temporary_folder(output_dir) as partial:
        yield partial
        made_by.write(partial / MANIFEST)
        try:
            os.replace(partial, output_dir)
        except OSError:
            if not is_finished(output_dir, made_by):
                raise


@contextmanager
def replacing(output: Path) -> Iterator[None]:
    """Set `output` aside, with what stopped runs left of it, until the scope ends.

    It comes back if the scope fails before anything new is there, as it does at a wrong input.

    Raises:
        InputError: It, or a folder beside it, is not of this program.
    """
    parts = [output, *(beside(output, ending) for ending in ("partial", MANIFEST, CHECKPOINTS))]
    for path in parts:
        if path.is_dir() and not (path / MANIFEST).is_file() and any(map(Path.is_file, path.iterdir())):
            raise InputError(f"{path}: has no {MANIFEST} and is not replaced: it is no output of this program.")
    with temporary_folder(output) as aside:
        moved = [path for path in parts if os.path.lexists(path)]
        for path in moved:
            os.rename(path, aside / path.name)
        try:
            yield
        except BaseException:
            if not any(map(os.path.lexists, parts)):
                for path in moved:
                    os.rename(aside / path.name, path)
            raise


def refuse_inputs(output: Path, made_by: Manifest) -> None:
    """Refuse an output that is an input of the same run, or a folder with one in it.

    Raises:
        InputError: It is.
    """
    for name, given in made_by.inputs.items():
        if os.path.exists(given["path"]) and lies_in(given["path"], output):
            raise InputError(f"{output}: would replace {given['path']}, the input {name}: choose another output.")


def lies_in(path: str | Path, folder: str | Path) -> bool:
    """Whether `path` is `folder` or below it, once links are followed."""
    inner, outer = (Path(os.path.realpath(place)) for place in (path, folder))
    return outer in (inner, *inner.parents)


def real(output: Path) -> Path:
    """Where an output goes: a link to a folder stands for that folder, also before the folder is there."""
    # `missing/../out` is a place only once somebody has made `missing`.
    leads_nowhere = ".." in output.parts and not output.parent.exists()
    if leads_nowhere or (output.is_symlink() and not output.is_file()):
        return Path(os.path.realpath(output))
    return output


def beside(output: Path, ending: str) -> Path:
    """The path of something that belongs to `output`."""
    return output.with_name(f"{output.name}.{ending}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _manifest_of(output: Path) -> Path:
    return output / MANIFEST if output.is_dir() else beside(output, MANIFEST)


def _as_manifest(made_by: Manifest | dict[str, Any]) -> Manifest:
    return made_by if isinstance(made_by, Manifest) else Manifest(made_by)
