"""The processes and threads that work on a command, and the device of each."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, parse_flag_from_env

from aag_hf.cli.stage import claimed
from aag_hf.manifest import Manifest


def device() -> torch.device:
    """The accelerator of this process, or the CPU."""
    return processes().device


def processes() -> PartialState:
    """The processes that a launcher started. Without an accelerator they communicate on the CPU."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())


def use_threads(threads: int | None) -> None:
    """Let torch use this many CPU threads."""
    if threads is not None:
        torch.set_num_threads(threads)


@contextmanager
def claimed_by_first(output: Path, made_by: Manifest, overwrite: bool, processes: PartialState) -> Iterator[bool]:
    """As `claimed`, for several processes that work on one output: the first one claims it for all.

    Args:
        output: As in `claimed`.
        made_by: As there.
        overwrite: As there.
        processes: All processes; each must enter and leave.

    Raises:
        InputError: As there.
    """
    with claimed(output, made_by, overwrite) if processes.is_main_process else nullcontext(False) as finished:
        told = [finished]
        if processes.num_processes > 1:
            broadcast_object_list(told)
        yield told[0]
        processes.wait_for_everyone()
