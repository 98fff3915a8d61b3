"""Layers that read the same tensor, such as q, k and v or gate and up: their products with it as one."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Mapping

import torch

from aag_hf.hyperlora.hypernetwork import Matrices, Site
from aag_hf.kernels.hyper_lora import hyper_lora_shrink


class SharedShrinks:
    """``x a`` of all layers that read the same x, in one product, during one pass or one `generate`.

    Which layers those are, the first block of a pass shows: one whose place in its block is the same is expected to
    share its input with the same others. It is checked: a layer that gets another tensor than expected, or the same one
    after it was changed, computes its own product. What is known ends with the pass, so that a pass does not depend on
    those before it, and what a layer does first it does until then, so that a recomputed block repeats itself.

    Args:
        sites: All sites of the adapter, by module name.
    """

    def __init__(self, sites: Mapping[str, Site]):
        self._sites = sites
        self._others: dict[str, dict[str, None]] = {}
        self._readers: dict[str, tuple[Site, ...]] = {}
        self._input: weakref.ref[torch.Tensor] | None = None
        self._read_as = (0, False)
        self._first: Site
        self._shrunk: dict[str, tuple[torch.Tensor, ...]] = {}
        self._shared_a: dict[tuple[str, bool], list[torch.Tensor]] = {}

    def shrunk(
        self, site: Site, x: torch.Tensor, matrices: Callable[[Site], list[Matrices]]
    ) -> tuple[torch.Tensor, ...] | None:
        """``(G, L, r)`` for each pair of the site, or ``None`` where no other layer is expected to read `x`.

        `matrices` gives the pairs of a site, see `GeneratedAdapters.matrices`.
        """
        # What was computed without gradients is of no use with them.
        read_as = x._version, torch.is_grad_enabled()
        if self._input is None or self._input() is not x or self._read_as != read_as or self._first == site:
            self._input, self._read_as, self._first = weakref.ref(x), read_as, site
            self._shrunk = self._products(site, x, matrices)
        elif site.name not in self._shrunk:
            self._expect_from_now_on(site)
        return self._shrunk.pop(site.name, None)

    def _products(
        self, first: Site, x: torch.Tensor, matrices: Callable[[Site], list[Matrices]]
    ) -> dict[str, tuple[torch.Tensor, ...]]:
        if first.name not in self._readers:
            self._readers[first.name] = self._expected_readers(first)
        readers = self._readers[first.name]
        if len(readers) == 1:
            return {}
        key = first.name, torch.is_grad_enabled()
        if key not in self._shared_a:
            pairs = zip(*(matrices(reader) for reader in readers), strict=True)
            self._shared_a[key] = [torch.cat([a for a, _ in pair], -1) for pair in pairs]
        products = [hyper_lora_shrink(x, a.to(x.device)).chunk(len(readers), -1) for a in self._shared_a[key]]
        return {reader.name: of_reader for reader, of_reader in zip(readers, zip(*products))}

    def _expected_readers(self, first: Site) -> tuple[Site, ...]:
        block, _, _ = first.name.rpartition(".")
        names = [f"{block}.{leaf}" for leaf in self._others.get(_place(first.name), ())]
        others = [self._sites[name] for name in names if name in self._sites]
        return first, *(other for other in others if other.in_features == first.in_features)

    def _expect_from_now_on(self, site: Site) -> None:
        block, _, leaf = site.name.rpartition(".")
        if block == self._first.name.rpartition(".")[0]:
            # The keys of a dictionary: a set whose order does not change from process to process.
            self._others.setdefault(_place(self._first.name), {})[leaf] = None


def _place(name: str) -> str:
    """A module's name without the numbers of its blocks."""
    return re.sub(r"\.\d+(?=\.|$)", "", name)
