"""The processes and threads that work on a command, and the device of each.

Torch takes seconds to import. It is imported where it is needed, so that a search on one process starts without it.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from aag_hf.cli.launcher import started_processes
from aag_hf.cli.stage import claimed
from aag_hf.manifest import Manifest

if TYPE_CHECKING:
    import torch
    from accelerate import PartialState


def device() -> "torch.device":
    """The accelerator of this process, or the CPU."""
    return _state().device


def processes() -> "PartialState | None":
    """The processes that a launcher started; ``None`` for a single one. On CPUs they communicate through gloo."""
    return None if started_processes() == 1 else _state()


def is_main_process() -> bool:
    """Whether this process writes and tells for all."""
    state = processes()
    return state is None or state.is_main_process


def use_threads(threads: int | None) -> None:
    """Let torch use this many CPU threads."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


@contextmanager
def claimed_by_first(output: Path, made_by: Manifest, overwrite: bool) -> Iterator[bool]:
    """As `claimed`, also for several processes that work on one output: the first one claims it for all.

    Args:
        output: As in `claimed`.
        made_by: As there.
        overwrite: As there.

    Raises:
        InputError: As there.
    """
    state = processes()
    with claimed(output, made_by, overwrite) if is_main_process() else nullcontext(False) as finished:
        if state is None:
            yield finished
            return
        from accelerate.utils import broadcast_object_list

        told = [finished]
        broadcast_object_list(told)
        yield told[0]
        state.wait_for_everyone()


def _state() -> "PartialState":
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())
