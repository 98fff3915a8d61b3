"""Records for a training that reads its file from beginning to end, and keeps nothing of it."""

import os
from collections.abc import Iterator
from itertools import islice
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from aag_hf.data.records import iter_records


class RecordStream(IterableDataset[dict[str, Any]]):
    """The records of a source in their order, anew for each epoch; a trainer's `train_dataset`.

    A Trainer needs `max_steps`, since a stream has no length. A run that is continued reads over what it had trained on
    before; several processes and the workers of a data loader divide the records among them.

    Args:
        source: As in [`~aag_hf.data.read_records`].
        split: As there.
        **options: As there.

    Raises:
        InputError: As there, when the bad record is reached.
    """

    def __init__(self, source: str | os.PathLike[str], split: str | None = None, **options: Any):
        super().__init__()
        self.source = source
        self.split = split
        self.options = options

    def __iter__(self) -> Iterator[dict[str, Any]]:
        records = iter_records(self.source, self.split, **self.options)
        worker = get_worker_info()
        return records if worker is None else islice(records, worker.id, None, worker.num_workers)
