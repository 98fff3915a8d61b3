"""Several adapted models over one copy of the base weights."""

import copy
from collections.abc import Iterator
from itertools import chain
from typing import TypeVar

from torch import nn

Model = TypeVar("Model", bound=nn.Module)


def share_weights(model: Model) -> Model:
    """A second module tree over the same parameters and buffers.

    Each tree can carry its own PEFT adapter, while the base weights exist once. The parameters stay shared: train one
    tree's adapter, not the base.

    Args:
        model: Any model, before adapters are put on it.

    Example:

    ```python
    teacher = PeftModel.from_pretrained(share_weights(base), "runs/teacher/reader")
    student = get_peft_model(share_weights(base), HyperLoraConfig(...))
    ```
    """
    shared = chain(model.parameters(), model.buffers(), _quantized_state(model))
    return copy.deepcopy(model, memo={id(tensor): tensor for tensor in shared})


def _quantized_state(model: nn.Module) -> Iterator[object]:
    """What layers of bitsandbytes keep beside their parameters; without it their numbers mean nothing."""
    for module in model.modules():
        if hasattr(module, "init_8bit_state"):
            if module.weight.CB is not None:
                # The first pass would move it from the weight, which is shared, to one of the layers.
                module.init_8bit_state()
            yield from (module.state.CB, module.state.SCB)
        elif getattr(module, "quant_state", None) is not None:
            yield module.quant_state
