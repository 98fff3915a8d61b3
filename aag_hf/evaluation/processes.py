"""Spreads records over processes, and gathers the results into one list."""

from collections.abc import Sequence
from typing import Any, TypeVar

from accelerate import PartialState
from accelerate.utils import gather_object

Item = TypeVar("Item")


def own_share(items: Sequence[Item], processes: PartialState | None) -> list[Item]:
    """The items of this process. Each item belongs to one process; without `processes` all belong to this one."""
    if processes is None:
        return list(items)
    return [items[place] for place in range(processes.process_index, len(items), processes.num_processes)]


def all_shares(items: Sequence[Any], processes: PartialState | None) -> list[Any]:
    """The results of all processes, in the order of the items. Every process must call it."""
    if processes is None or processes.num_processes == 1:
        return list(items)
    shares = gather_object([list(items)])
    count = len(shares)
    return [shares[i % count][i // count] for i in range(sum(map(len, shares)))]
