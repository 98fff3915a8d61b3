"""Tensors that are computed on first use, and kept while there is room."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

import torch

GIGABYTE = 2**30

Key = TypeVar("Key", bound=Hashable)
Tensors = tuple[torch.Tensor, ...]


class KeptTensors(Generic[Key]):
    """A store of some tensors per key. Those least recently used go first.

    Args:
        compute: Takes keys that are not in the store and gives the tensors of each. No tensor may be a view of a larger
            one, which would stay in memory as a whole.
        room: The most bytes to keep.
    """

    def __init__(self, compute: Callable[[list[Key]], Sequence[Tensors]], room: int):
        self._compute = compute
        self._room = room
        self._kept: OrderedDict[Key, Tensors] = OrderedDict()
        self.bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether more tensors would push others out."""
        return self.bytes >= self._room

    def of(self, keys: Sequence[Key]) -> list[Tensors]:
        """The tensors of each key. Those that are missing are computed together."""
        missing = [key for key in dict.fromkeys(keys) if key not in self._kept]
        for key, tensors in zip(missing, self._compute(missing) if missing else (), strict=True):
            self._kept[key] = tensors
            self.bytes += _bytes(tensors)
        for key in keys:
            self._kept.move_to_end(key)
        found = [self._kept[key] for key in keys]
        while self.bytes > self._room:
            self.bytes -= _bytes(self._kept.popitem(last=False)[1])
        return found


def _bytes(tensors: Tensors) -> int:
    return sum(tensor.nbytes for tensor in tensors)
