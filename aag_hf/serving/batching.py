"""The work of many clients, done together by one thread. A model is never called from two threads at once."""

import traceback
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from threading import Condition, Thread
from typing import Any, Protocol

from aag_hf.errors import InputError

# A client that finds so many before it is sent away, so that what waits never fills the memory.
MOST_WAITING = 1024


class Job(Protocol):
    """Something to do. Jobs of equal `kind` can be done together; `result` gets what came of it."""

    result: Future[Any]

    @property
    def kind(self) -> Hashable: ...


class Workers(Protocol):
    """Those who do jobs."""

    @property
    def alive(self) -> bool:
        """Whether they work."""

    def submit(self, job: Any) -> Future[Any]:
        """Let `job` be done; returns its `result`, which is cancelled if nobody waits for it any more."""


class Busy(RuntimeError):
    """Too many jobs wait already."""


class Batcher:
    """A thread that takes the job that waits longest and, with it, the others of its kind.

    A batch that fails as a whole is done again job by job, so that one job's error is not another's. A job whose
    `result` was cancelled before it began is dropped.

    Args:
        work: Does jobs of one kind. It returns what came of each, in their order: a result, or an exception.
        max_batch_size: The most jobs of a batch.

    Example:

    ```python
    with Batcher(answerer.work, max_batch_size=8) as batcher:
        question = Question("Where is Suva?", memory=None, max_tokens=16)
        print(batcher.submit(question).result().text)
    ```
    """

    def __init__(self, work: Callable[[Sequence[Any]], Sequence[Any]], max_batch_size: int):
        self._work, self._max_batch_size = work, max_batch_size
        self._waiting: deque[Job] = deque()
        self._changed, self._closed = Condition(), False
        self._thread = Thread(target=self._run, name="aag batches", daemon=True)

    def __enter__(self) -> "Batcher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            for job in self._waiting:
                job.result.cancel()
            self._waiting.clear()
            self._changed.notify()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def submit(self, job: Job) -> Future[Any]:
        """Let `job` wait for its batch; returns its `result`.

        Raises:
            Busy: `MOST_WAITING` jobs wait already, or the batcher was closed.
        """
        with self._changed:
            if self._closed or len(self._waiting) >= MOST_WAITING:
                raise Busy(f"{len(self._waiting)} requests wait already: try again later.")
            self._waiting.append(job)
            self._changed.notify()
        return job.result

    def _run(self) -> None:
        while batch := self._next_batch():
            begun = [job for job in batch if job.result.set_running_or_notify_cancel()]
            if begun:
                self._do(begun)

    def _next_batch(self) -> list[Job]:
        """Empty once the batcher is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return []
            first = self._waiting[0].kind
            batch = [job for job in self._waiting if job.kind == first][: self._max_batch_size]
            taken = set(map(id, batch))
            self._waiting = deque(job for job in self._waiting if id(job) not in taken)
            return batch

    def _do(self, batch: Sequence[Job]) -> None:
        try:
            results = list(self._work(batch))
        except Exception as error:
            if len(batch) > 1:
                for job in batch:
                    self._do([job])
                return
            if not isinstance(error, InputError):
                traceback.print_exception(error)
            results = [error]
        for job, result in zip(batch, results, strict=True):
            if isinstance(result, BaseException):
                job.result.set_exception(result)
            else:
                job.result.set_result(result)
