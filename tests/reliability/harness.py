"""Commands in processes of their own, each forked from one that has imported everything, and disturbed on request."""

import ctypes
import hashlib
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from aag_hf.cli.commands import COMMANDS
from aag_hf.cli.main import main
from aag_hf.cli.tiny import make_tiny_model
from aag_hf.data.countries import country_documents, load_countries
from aag_hf.data.jsonl import write_rows

RECORDS = 16
_TRAINING = (
    "--model_name_or_path tiny --max_steps 6 --save_strategy steps --save_steps 2 --save_total_limit 2 "
    "--logging_steps 2 --per_device_train_batch_size 4 --threads 1 --seed 3 --use_cpu true --report_to none"
)


@dataclass(frozen=True)
class Stage:
    """A command line, and the folders that it makes."""

    arguments: str
    makes: tuple[str, ...]


STAGES = {
    "data": Stage("data --source raw/questions.jsonl --output data/train.jsonl.gz", ("data",)),
    "retrieve": Stage(
        "retrieve --input data/train.jsonl.gz --pool raw/documents.jsonl --output found/train.jsonl.gz --top_k 2",
        ("found",),
    ),
    "compress": Stage(
        "compress --input found/train.jsonl.gz --output short/train.jsonl.gz --model_name_or_path tiny "
        "--dtype float32 --threads 1 --batch_size 6",
        ("short",),
    ),
    "train-generator": Stage(
        f"train-generator --train_file short/train.jsonl.gz --output_dir generator/model {_TRAINING}", ("generator",)
    ),
    "generate": Stage(
        "generate --generator generator/model --input short/train.jsonl.gz --output written/train.jsonl.gz "
        "--model_name_or_path tiny --threads 1 --batch_size 6 --context_max_length 12",
        ("written",),
    ),
    "teacher": Stage(
        f"train --train_file written/train.jsonl.gz --method lora --context passages --output_dir teacher/model "
        f"{_TRAINING}",
        ("teacher",),
    ),
    "train": Stage(
        "train --train_file written/train.jsonl.gz --method aag --context generated --teacher teacher/model "
        f"--teacher_cache_dir cache --feature_dim 8 --output_dir reader/model {_TRAINING}",
        ("reader", "cache"),
    ),
    "evaluate": Stage(
        "evaluate --model reader/model teacher/model --input written/train.jsonl.gz --output_dir results "
        "--controls shuffled off --threads 1 --batch_size 8",
        ("results",),
    ),
}
QUICK_STAGES = ("data", "retrieve")

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(
    [
        *(f"aag_hf.cli.{command.replace('-', '_')}" for command in COMMANDS),
        "aag_hf.data.compression",
        "aag_hf.data.countries",
        "tantivy",
        "datasets",
        "matplotlib.figure",
        "transformers.models.llama.modeling_llama",
        "transformers.trainer",
    ]
)


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit status, negative for a signal, and what it said on stderr."""

    status: int
    error: str

    def said(self) -> list[str]:
        """The command's own lines."""
        return [line for line in self.error.splitlines() if line.startswith("aag ")]


def write_materials(folder: Path) -> None:
    """What the first stages begin with."""
    write_rows(load_countries()["train"][:RECORDS], folder / "raw" / "questions.jsonl")
    write_rows(country_documents()[:60], folder / "raw" / "documents.jsonl")
    make_tiny_model(folder / "tiny", seed=1)


def as_before(stage: str, undisturbed: Path, folder: Path) -> Path:
    """A copy of `undisturbed` without what `stage` makes."""
    shutil.rmtree(folder, ignore_errors=True)
    made = STAGES[stage].makes
    shutil.copytree(undisturbed, folder, ignore=lambda where, _: made if Path(where) == undisturbed else ())
    return folder


def start(stage: str, folder: Path, disturb: Callable[[], None] | None = None) -> "Started":
    """A process that runs `stage` in `folder`, after calling `disturb`."""
    reader, writer = _processes.Pipe(duplex=False)
    process = _processes.Process(target=_run, args=(STAGES[stage].arguments.split(), folder, writer, disturb))
    process.start()
    writer.close()
    return Started(process, reader)


@dataclass(frozen=True)
class Started:
    """A process, and what it says."""

    process: BaseProcess
    reader: Connection

    def end(self) -> Ended:
        """Wait for it."""
        said = b"".join(iter(partial(os.read, self.reader.fileno(), 65536), b""))
        self.process.join()
        self.reader.close()
        assert self.process.exitcode is not None
        return Ended(self.process.exitcode, said.decode(errors="replace"))


def run(stage: str, folder: Path, disturb: Callable[[], None] | None = None) -> Ended:
    """Run `stage` to its end."""
    return start(stage, folder, disturb).end()


def count_writes(stage: str, folder: Path) -> int:
    """How often `stage` writes to the file system below `folder`; it is run for that."""
    log = folder.with_name(f"{folder.name}.writes")
    ended = run(stage, folder, partial(_at_writes, folder, log=log))
    assert ended.status == 0, ended.error
    count = log.stat().st_size
    log.unlink()
    return count


def killed_at(write: int, folder: Path) -> Callable[[], None]:
    """Has a process kill itself at its n-th write below `folder`, counted from 1."""
    return partial(_at_writes, folder, kill_at=write)


def with_file_size(limit: int) -> Callable[[], None]:
    """Has a process find no room for files larger than `limit` bytes."""
    return partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit))


def without_privileges() -> None:
    """Gives up all of Linux's capabilities: the superuser may no longer write in read-only folders either."""
    version_3, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capset(version_3, none) == 0


def contents(folder: Path) -> dict[str, str]:
    """What each file below `folder` holds, apart from how long things took."""
    return {str(path.relative_to(folder)): _content(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _run(arguments: list[str], folder: Path, said: Connection, disturb: Callable[[], None] | None) -> None:
    os.chdir(folder)
    for stream in (1, 2):
        os.dup2(said.fileno(), stream)
    said.close()
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1, encoding="utf-8") for stream in (1, 2))
    if disturb is not None:
        disturb()
    sys.exit(main(arguments))


def _at_writes(folder: Path, kill_at: int = 0, log: Path | None = None) -> None:
    """Watch the writes below `folder`: `log` gets a byte for each, the one of number `kill_at` is not to happen."""
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND) if log else -1
    own, root, count = os.getpid(), str(folder), 0

    def watch(event: str, args: tuple) -> None:
        nonlocal count
        if event == "open":
            is_write = isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        else:
            is_write = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
        if not (is_write and isinstance(args[0], (str, os.PathLike)) and os.getpid() == own):
            return
        if not os.path.abspath(args[0]).startswith(root + os.sep):
            return
        count += 1
        if log:
            os.write(descriptor, b".")
        if count == kill_at:
            os.kill(own, signal.SIGKILL)

    sys.addaudithook(watch)


_DURATIONS = ("seconds", "train_seconds", "train_runtime", "eval_runtime", "per_second")


def _content(path: Path) -> str:
    data = path.read_bytes()
    if path.suffix == ".json":
        data = json.dumps(_without_durations(json.loads(data)), sort_keys=True).encode()
    elif path.suffix == ".md":
        data = re.sub(rb"\d+ seconds", b"", data)
    elif path.suffix == ".png":
        return "a whole picture" if data.endswith(b"IEND\xaeB`\x82") else "half a picture"
    return hashlib.sha256(data).hexdigest()


def _without_durations(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_durations(v) for name, v in value.items() if not name.endswith(_DURATIONS)}
    return [_without_durations(v) for v in value] if isinstance(value, list) else value
