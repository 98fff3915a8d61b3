"""Saved parts: each is whole, alone in its folder, and the same whenever what it holds is the same."""

import os
import shutil
from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import nn
from transformers import PreTrainedTokenizerBase

from aag_hf.locks import temporary_folder

_OF_SAVED = ("config.json", "adapter_config.json", "tokenizer_config.json")


def settle(tokenizer: PreTrainedTokenizerBase, *models: nn.Module | None) -> None:
    """Bring a tokenizer and models into the form in which they are saved.

    A fast tokenizer keeps how its last call cut and padded; PEFT keeps names of layers as a set, whose order changes
    from process to process.

    Args:
        tokenizer: Of the models.
        models: Adapters among them are meant, others stay as they are.
    """
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    for model in models:
        if isinstance(model, PeftModel):
            for config in model.peft_config.values():
                if isinstance(config.target_modules, set):
                    config.target_modules = sorted(config.target_modules)


def save_part(part: Any, folder: Path, **kwargs: Any) -> None:
    """Save a part of a model instead of one that was saved in `folder`: the files of both would be read together.

    Args:
        part: The part; ``None`` only removes the other one.
        folder: Where to. Files that belong to no saved part stay.
        **kwargs: Passed on to the part's `save_pretrained`.
    """
    is_saved = any((folder / name).is_file() for name in _OF_SAVED)
    if part is None:
        if is_saved:
            shutil.rmtree(folder)
        return
    with temporary_folder(folder) as new:
        part.save_pretrained(new, **kwargs)
        if is_saved:
            shutil.rmtree(folder)
        if folder.exists():
            shutil.copytree(new, folder, dirs_exist_ok=True)
        else:
            os.replace(new, folder)
