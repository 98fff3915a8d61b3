"""The end of a command: every error becomes one line for the user, never a traceback."""

import atexit
import os
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from logging import ERROR, LogRecord, getLogger
from signal import SIGINT
from threading import Timer

from aag_hf.errors import DivergenceError
from aag_hf.extras import named

STOPPED = 130
WRONG_INPUT = 2
UNEXPECTED = 1
LONGEST = 1500
# The threads need less than a millisecond, but on a busy machine they first wait for a processor.
SECONDS_FOR_THREADS = 0.5

# Torch raises a RuntimeError with these words if memory, a disk or a damaged file is at fault.
_OF_THE_MACHINE = re.compile(r"out of memory|not enough memory|can't allocate|inline_container|PytorchStream")


def run_command(command: str, run: Callable[[], object]) -> int:
    """Run a command; errors become one line on stderr, with the traceback before it if ``AAG_TRACEBACK=1``.

    Args:
        command: The command's name, with which the line begins.
        run: Does the work.

    Returns:
        The exit status: 0 for success, 2 for an error that the user can mend, 130 for Ctrl-C, and 1 for diverged
        training or an error that this package did not expect.
    """
    atexit.register(end_processes)
    try:
        with _no_interrupt_lost(), _warnings_in_one_line(command):
            _quieten_libraries()
            run()
        sys.stdout.flush()
        return 0
    except KeyboardInterrupt:
        _say(command, "stopped; run the same command again to continue.")
        return STOPPED
    except BrokenPipeError:
        # The reader of our output left, as `| head` does; Python must not try to flush what is left at exit.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNEXPECTED
    except Exception as error:
        if os.environ.get("AAG_TRACEBACK") == "1":
            traceback.print_exc()
        if isinstance(error, ModuleNotFoundError):
            error = named(error)
        if isinstance(error, DivergenceError):
            _say(command, one_line(error))
            return UNEXPECTED
        if _is_of_the_user(error):
            _say(command, one_line(error))
            return WRONG_INPUT
        kind = type(error).__name__
        _say(command, f"unexpected {kind}: {one_line(error)} (AAG_TRACEBACK=1 shows where; please report it).")
        return UNEXPECTED


def end_processes() -> None:
    """Leave the group of processes that a launcher started, and let its threads come to rest.

    One of Gloo's threads frees the tensors of the last exchange, and needs the interpreter for it. If the interpreter
    ends before that, the thread aborts the process after all work is done. Torch still refers to the group, so its
    destructor, which would wait for the thread, does not run.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
        time.sleep(SECONDS_FOR_THREADS)


def one_line(error: BaseException) -> str:
    """The message of an error, as one line that is not too long to read."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}."
    else:
        text = str(error) or type(error).__name__
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


@contextmanager
def _no_interrupt_lost() -> Iterator[None]:
    """Let Ctrl-C reach the command even inside a destructor, where Python drops every exception."""
    before = sys.unraisablehook

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            # Send it again a little later, when the destructor has returned.
            Timer(0.05, os.kill, (os.getpid(), SIGINT)).start()
        else:
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextmanager
def _warnings_in_one_line(command: str) -> Iterator[None]:
    """Tell warnings as errors are told, and not with a line of code."""

    def tell(message: Warning | str, *_: object, **__: object) -> None:
        _say(command, " ".join(str(message).split()))

    with warnings.catch_warnings():
        warnings.showwarning = tell
        yield


def _is_of_the_user(error: Exception) -> bool:
    from huggingface_hub.errors import HTTPError, StrictDataclassError
    from safetensors import SafetensorError

    kinds = (OSError, ImportError, ValueError, MemoryError, HTTPError, SafetensorError, StrictDataclassError)
    return isinstance(error, kinds) or (
        isinstance(error, RuntimeError) and _OF_THE_MACHINE.search(str(error)) is not None
    )


def _say(command: str, message: str) -> None:
    from tqdm import tqdm

    with suppress(BrokenPipeError):
        # Written on a line of its own, even if there is a progress bar.
        tqdm.write(f"aag {command}: {message}", file=sys.stderr)
        sys.stderr.flush()


def _is_no_announcement(record: LogRecord) -> bool:
    """DeepSpeed tells, where it is installed, which kind of processor it found, also if nothing uses it."""
    return record.module != "real_accelerator"


def _quieten_libraries() -> None:
    """Silence loading bars and notices of libraries, which would drown the output of the command."""
    from huggingface_hub.utils import disable_progress_bars

    # What transformers goes by when it is imported. Commands without a model do not wait for that.
    disable_progress_bars()
    if "transformers" in sys.modules:
        from transformers.utils import logging

        logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    # It warns, per layer and pass, that inputs are not in float16 yet.
    getLogger("bitsandbytes").setLevel(ERROR)
    getLogger("DeepSpeed").addFilter(_is_no_announcement)
    for stream in (sys.stdout, sys.stderr):
        # The name of a file may hold bytes that are not text.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
