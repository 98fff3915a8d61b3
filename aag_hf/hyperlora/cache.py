"""Adapters of questions that were asked before."""

from collections import OrderedDict

import torch

from aag_hf.hyperlora.hypernetwork import HyperNetwork, Matrices


class AdapterCache:
    """The generated adapters of the questions that were used last, within a number of bytes.

    An adapter is found again by its features and by the hypernetwork with the weights it has: after a training step or
    the loading of others it is made anew. Only a change through ``Parameter.data`` goes unnoticed. For one thread.

    Args:
        max_bytes: The most that is kept. A question's adapter takes ``4 · r · (d_in + d_out)`` bytes an adapted layer.

    Example:

    ```python
    cache = AdapterCache(max_bytes=2**28)
    model.generate(**inputs, features=features, adapter_cache=cache)
    ```
    """

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self.bytes = 0
        self._entries: OrderedDict[tuple[HyperNetwork, bytes], dict[str, Matrices]] = OrderedDict()
        self._weights: dict[HyperNetwork, tuple] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def adapters(self, network: HyperNetwork, features: torch.Tensor) -> dict[str, list[Matrices]]:
        """What ``network(features)`` gives, without gradients; only the adapters of new questions are generated.

        Args:
            network: The hypernetwork.
            features: ``(batch, feature_dim)``; a question may stand in it more than once.

        Returns:
            A ``(sites, batch, d_in, r)`` and B ``(sites, batch, r, d_out)`` by kind; see `HyperNetwork.matrices`.
        """
        weights = tuple((p.data_ptr(), 0 if p.is_inference() else p._version) for p in network.parameters())
        if self._weights.get(network) != weights:
            # Also lest other weights come to lie where these did.
            self._forget(network)
            self._weights[network] = weights
        keys = [(network, row.numpy().tobytes()) for row in features.detach().double().cpu()]
        new = {key: i for i, key in enumerate(keys) if key not in self._entries}
        with torch.no_grad():
            # Without a new question, too: the static part does not depend on any.
            made = network(features[list(new.values())])
        adapters = {key: _of_question(made, i) for i, key in enumerate(new)}
        adapters |= {key: self._entries[key] for key in keys if key not in new}
        for key in keys:
            self._keep(key, adapters[key])
        return {kind: [_together([adapters[key][kind] for key in keys]), *pairs[1:]] for kind, pairs in made.items()}

    def _forget(self, network: HyperNetwork) -> None:
        for key in [key for key in self._entries if key[0] is network]:
            self.bytes -= _bytes(self._entries.pop(key))

    def _keep(self, key: tuple[HyperNetwork, bytes], adapter: dict[str, Matrices]) -> None:
        if key not in self._entries:
            self.bytes += _bytes(adapter)
        self._entries[key] = adapter
        self._entries.move_to_end(key)
        while self.bytes > self.max_bytes:
            self.bytes -= _bytes(self._entries.popitem(last=False)[1])


def _of_question(made: dict[str, list[Matrices]], i: int) -> dict[str, Matrices]:
    # Copied: a view would keep the adapters of the whole batch in memory.
    return {
        kind: (pairs[0][0][:, i : i + 1].clone(), pairs[0][1][:, i : i + 1].clone()) for kind, pairs in made.items()
    }


def _together(adapters: list[Matrices]) -> Matrices:
    """One batch of several questions' A ``(sites, 1, d_in, r)`` and B ``(sites, 1, r, d_out)``."""
    if len(adapters) == 1:
        return adapters[0]
    a, b = zip(*adapters)
    return torch.cat(a, dim=1), torch.cat(b, dim=1)


def _bytes(adapter: dict[str, Matrices]) -> int:
    return sum(matrix.numel() * matrix.element_size() for pair in adapter.values() for matrix in pair)
