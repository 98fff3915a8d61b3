"""Memory that merged weights leave for the next time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch


class SpareMemory:
    """Tensors that may be overwritten, of a CPU: memory fresh from the system takes longer to get than to fill.

    Other devices have allocators that keep it themselves. Copies of a model start without any.
    """

    def __init__(self) -> None:
        self._spare: list[torch.Tensor] = []

    def take(self, like: torch.Tensor) -> torch.Tensor:
        """A contiguous tensor of any content and of the shape, dtype and device of `like`."""
        # Tensors of inference mode cannot be changed outside.
        wanted = like.shape, like.dtype, like.device, torch.is_inference_mode_enabled()
        for place, tensor in enumerate(self._spare):
            if (tensor.shape, tensor.dtype, tensor.device, tensor.is_inference()) == wanted:
                return self._spare.pop(place)
        return torch.empty_like(like, requires_grad=False, memory_format=torch.contiguous_format)

    def keep(self, tensors: Iterable[torch.Tensor]) -> None:
        """Keep these, and let those go that nobody took."""
        self._spare = [tensor for tensor in tensors if tensor.device.type == "cpu"]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()
