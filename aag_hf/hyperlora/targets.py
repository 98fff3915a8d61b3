"""Which layers a memory is written into, where nobody names them."""

import re

from torch import nn
from transformers.pytorch_utils import Conv1D

from aag_hf.errors import InputError


def memory_layers(model: nn.Module, share: float = 1 / 3) -> list[str]:
    """The last layer of each feed-forward network in the upper part of a decoder, for ``target_modules``.

    They write into the residual stream, and read what the network knows of the token: of its block's layers that end
    in the model's width, it is the one with the widest input.

    Args:
        model: A causal or encoder-decoder language model, before adapters are put on it.
        share: How much of the depth, from above.

    Returns:
        Full names, such as ``"model.layers.29.mlp.down_proj"``.

    Raises:
        InputError: No such layers are found.
    """
    config = model.config.get_text_config()
    width = config.hidden_size
    blocks: dict[int, tuple[int, str]] = {}
    for name, module in model.named_modules():
        number = re.search(r"\.(\d+)\.", name)
        if number is None or (config.is_encoder_decoder and "decoder" not in name.split(".")):
            continue
        d_in, d_out = _widths(module)
        if d_out == width and d_in > blocks.get(int(number.group(1)), (width, ""))[0]:
            blocks[int(number.group(1))] = (d_in, name)
    depth = max(blocks, default=-1) + 1
    names = [name for number, (_, name) in sorted(blocks.items()) if number >= round(depth * (1 - share))]
    if not names:
        raise InputError(
            f"{type(model).__name__}: found no layers to write memories into: name them in target_modules."
        )
    return names


def _widths(module: nn.Module) -> tuple[int, int]:
    if isinstance(module, Conv1D):
        return module.nx, module.nf
    return getattr(module, "in_features", 0), getattr(module, "out_features", 0)
