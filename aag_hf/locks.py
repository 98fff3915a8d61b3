"""Locks that let one run at a time write an output, and temporary files and folders that belong to one run.

The operating system keeps the locks (`flock`). It releases them when a process ends, however it ends, so no lock is
ever stale. Process numbers could not tell that: they are reused, and all containers of a cluster have the same few.
"""

import fcntl
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from secrets import token_hex

from aag_hf.errors import InputError

_held: set[int] = set()


def _leave_to_parent() -> None:
    """A process of a data loader may outlive a killed run, and must not keep the run's locks."""
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Let no other run write `output` until the scope ends. Says so if a killed run had it.

    The lock is a hidden file beside `output`. It names host, process and time, for those who are refused.

    Raises:
        InputError: Another run holds it, or nothing can be written there.
    """
    lock = output.with_name(f".{output.name}.lock")
    missing = [parent for parent in output.parents if not parent.exists()]
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _lock(lock, output)
    except OSError as error:
        raise InputError(f"{output}: cannot be written there ({error.strerror}): choose another output.") from None
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        _let_go(descriptor)
        for parent in missing:
            # Remove only folders that are still empty, so that a run that fails at once leaves nothing behind.
            with suppress(OSError):
                parent.rmdir()


@contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """An empty file beside `path` that belongs to this run. It is removed at the end of the scope unless renamed."""
    with _temporary(path, ".tmp", lambda new: os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)) as new:
        yield new


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path` that belongs to this run. It is removed at the end of the scope unless renamed."""
    with _temporary(path, ".partial", _open_new_folder) as new:
        yield new


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files and folders that killed runs left beside `path`. Those of living runs stay."""
    for ending in (".tmp", ".partial"):
        for leftover in path.parent.glob(f".{escape(path.name)}.*{ending}"):
            with suppress(OSError):
                descriptor = os.open(leftover, os.O_RDONLY)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove(leftover)
                finally:
                    os.close(descriptor)


def _lock(lock: Path, output: Path) -> int:
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        _held.add(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read_holder(descriptor)
            _let_go(descriptor)
            raise InputError(
                f"{output}: another run is writing it ({holder}): wait until it ends, or choose another output."
            ) from None
        except OSError:
            print(f"{output}: this file system has no locks: let no other run write there.", file=sys.stderr)
        if _is_named(descriptor, lock):
            break
        # The run that held it has removed the file meanwhile, so a lock on it would keep nobody out.
        _let_go(descriptor)
    if os.fstat(descriptor).st_size:
        print(f"{output}: taken over from a run that was stopped ({_read_holder(descriptor)}).", file=sys.stderr)
    os.ftruncate(descriptor, 0)
    own = {"host": socket.gethostname(), "process": os.getpid(), "since": time.time()}
    os.pwrite(descriptor, json.dumps(own).encode(), 0)
    return descriptor


def _read_holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        minutes = (time.time() - holder["since"]) / 60
        return f"process {holder['process']} on {holder['host']}, begun {minutes:.0f} minutes ago"
    except (ValueError, KeyError, TypeError):
        return "process unknown"


def _let_go(descriptor: int) -> None:
    if descriptor in _held:
        _held.discard(descriptor)
        os.close(descriptor)


def _is_named(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


@contextmanager
def _temporary(path: Path, ending: str, create: Callable[[Path], int]) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    while True:
        new = path.with_name(f".{path.name}.{token_hex(4)}{ending}")
        descriptor = create(new)
        _held.add(descriptor)
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is_named(descriptor, new):
            break
        # Between the two calls above, another run took it for a leftover.
        _let_go(descriptor)
    try:
        yield new
    finally:
        with suppress(FileNotFoundError):
            _remove(new)
        _let_go(descriptor)


def _open_new_folder(path: Path) -> int:
    path.mkdir()
    return os.open(path, os.O_RDONLY)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
