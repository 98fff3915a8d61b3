"""Converts FiD's original checkpoints."""

import os
import re
import shutil
import tempfile
from pathlib import Path
from pickle import UnpicklingError  # nosec B403 # nothing is unpickled

import torch
from safetensors.torch import load_file
from torch import Tensor

from aag_hf.errors import InputError
from aag_hf.fid.configuration import FiDT5Config
from aag_hf.fid.modeling import FID_KEY_MAPPING, FiDT5ForConditionalGeneration

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "spiece.model",
)


def rename_fid_keys(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under T5's names, ``encoder.encoder.block.0.module.layer.…`` as ``encoder.block.0.layer.…``.

    Names that T5 has already stay the same.
    """
    renamed = {}
    for key, tensor in state_dict.items():
        for pattern, replacement in FID_KEY_MAPPING.items():
            key = re.sub(pattern, replacement, key)
        renamed[key] = tensor
    return renamed


def convert_fid_checkpoint(source: str | Path, target: str | Path) -> Path:
    """Write the FiD or T5 checkpoint in ``source`` as a directory for ``FiDT5ForConditionalGeneration``.

    The weights are read with ``weights_only=True``, so a file that holds anything but tensors is refused. They are
    checked against the configuration and written as safetensors. Tokenizer files are copied. ``target`` appears only
    when it is complete.

    Args:
        source: The directory with ``config.json`` and ``pytorch_model.bin`` or ``model.safetensors``.
        target: The directory to write. It must not exist.

    Returns:
        ``target``.

    Raises:
        InputError: A file is missing or unreadable, the target exists, or parameters are missing or left over.
    """
    source, target = Path(source), Path(target)
    if target.exists():
        raise InputError(f"{target} exists already: choose a new directory for the converted checkpoint.")
    if not (source / "config.json").is_file():
        raise InputError(f"{source} holds no config.json: give the directory of a FiD or T5 checkpoint.")
    state_dict = rename_fid_keys(_read_weights(source))
    config = FiDT5Config.from_pretrained(source)
    model = FiDT5ForConditionalGeneration.from_pretrained(None, config=config, state_dict=state_dict)

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as folder:
        complete = Path(folder) / "checkpoint"
        model.save_pretrained(complete)
        for name in _TOKENIZER_FILES:
            if (source / name).is_file():
                shutil.copy(source / name, complete)
        os.replace(complete, target)
    return target


def _read_weights(source: Path) -> dict[str, Tensor]:
    if (source / "model.safetensors").is_file():
        return load_file(source / "model.safetensors")
    weights = source / "pytorch_model.bin"
    if not weights.is_file():
        raise InputError(f"{source} holds neither pytorch_model.bin nor model.safetensors.")
    try:
        return torch.load(weights, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError) as error:
        raise InputError(f"{weights} is damaged or holds more than tensors, and is not loaded.") from error
