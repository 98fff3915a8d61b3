"""Adapters as folders of plain LoRAs, of which the least recently used leave."""

import os
import re
import shutil
from collections import Counter
from pathlib import Path
from secrets import token_hex

import torch
from peft import LoraConfig

from aag_hf.errors import InputError
from aag_hf.hyperlora import save_lora
from aag_hf.locks import temporary_folder
from aag_hf.serving.adapter_names import ADAPTERS, adapter_folder_name, name_of_folder

# Of an adapter that is half written, or half removed.
_PARTIAL = re.compile(r"\.(.+)\.[0-9a-f]{8}\.partial")


class AdapterFolder:
    """A folder of adapters. One thread of one process writes it; others read it meanwhile. Other things in it stay.

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
        for leftover in path.iterdir():
            of = _PARTIAL.fullmatch(leftover.name)
            if of is not None and name_of_folder(of[1]) is not None:
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
        paths = {name: path for path in self.path.iterdir() if (name := name_of_folder(path.name)) is not None}
        sizes = {name: sum(file.stat().st_size for file in path.iterdir()) for name, path in paths.items()}
        total, left = sum(sizes.values()), []
        for name, path in sorted(paths.items(), key=lambda one: one[1].stat().st_mtime_ns):
            if total <= self.max_bytes:
                break
            if name != keep and not self.in_use[name]:
                # A reader finds the whole adapter or none.
                gone = path.rename(self.path / f".{path.name}.{token_hex(4)}.partial")
                shutil.rmtree(gone)
                total -= sizes[name]
                left.append(name)
        return left
