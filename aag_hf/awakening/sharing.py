"""Several adapted models over one copy of the base weights."""

import copy
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
    return copy.deepcopy(model, memo={id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())})
