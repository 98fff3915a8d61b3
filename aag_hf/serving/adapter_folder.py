"""Adapters as folders of plain LoRAs, of which the least recently used leave."""

import os
import shutil
from collections import Counter
from pathlib import Path
from secrets import token_hex

import torch
from peft import LoraConfig

from aag_hf.errors import InputError
from aag_hf.hyperlora import save_lora
from aag_hf.locks import temporary_folder
from aag_hf.serving.adapter_names import ADAPTERS, adapter_folder_name

_GONE = ".gone-"


class AdapterFolder:
    """A folder of adapters. One thread of one process writes it; others read it meanwhile.

    Args:
        path: The folder. It is made if it is absent, for this user alone.
        max_bytes: The most that adapters take together, beside those in use.

    Attributes:
        in_use: How often each name is in use; these adapters stay.

    Raises:
        InputError: The folder belongs to others, who could put adapters into it, or cannot be made.
    """

    def __init__(self, path: Path, max_bytes: int):
        self.path, self.max_bytes = path, max_bytes
        self.in_use: Counter[str] = Counter()
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = path.stat()
        except OSError as error:
            raise InputError(f"{path}: cannot be a folder of adapters ({error.strerror}): set {ADAPTERS}.") from None
        if found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise InputError(f"{path}: others can write there: set {ADAPTERS} to a folder of your own.")
        for leftover in path.glob(".*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def path_of(self, name: str) -> Path:
        """Where an adapter lies, if it is there."""
        folder = adapter_folder_name(name)
        assert folder is not None, name
        return self.path / folder

    def holds(self, name: str) -> bool:
        """Whether an adapter is there; it counts as used now."""
        try:
            os.utime(self.path_of(name))
        except FileNotFoundError:
            return False
        return True

    def add(self, name: str, config: LoraConfig, weights: dict[str, torch.Tensor]) -> list[str]:
        """Write an adapter, whole or not at all.

        Returns:
            The names of those that had to leave.
        """
        path = self.path_of(name)
        with temporary_folder(path) as partial:
            save_lora(partial, config, weights)
            partial.rename(path)
        return self._make_room(keep=name)

    def _make_room(self, keep: str) -> list[str]:
        sizes = {path: sum(file.stat().st_size for file in path.iterdir()) for path in self.path.glob("[!.]*")}
        total, left = sum(sizes.values()), []
        for path in sorted(sizes, key=lambda path: path.stat().st_mtime_ns):
            name = "aag:" + path.name.replace("-", ":")
            if total <= self.max_bytes:
                break
            if name != keep and not self.in_use[name]:
                # A reader finds the whole adapter or none.
                gone = path.rename(self.path / f"{_GONE}{token_hex(4)}")
                shutil.rmtree(gone)
                total -= sizes[path]
                left.append(name)
        return left
