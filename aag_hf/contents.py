"""Digests of files, folders and models, which are equal for equal content, whatever the name."""

import hashlib
import json
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from huggingface_hub.constants import HF_HUB_CACHE

from aag_hf.data.embedded import EMBEDDED, embedded_file
from aag_hf.errors import InputError
from aag_hf.manifest import MANIFEST, Manifest

# Files that a saved model does not need, or that describe a run and not its outcome.
_BESIDE = ("README.md", "training_args.bin", "trainer_state.json", "curves.png")
INDEX = "index"
_FIGURES = ("training_figures", "training_environment")


def content_of(name_or_path: str | Path) -> str:
    """A digest of a file or folder. For a name of the Hub, the commit in the Hub's cache, else the name.

    Raises:
        InputError: The name can only be a path, and there is nothing.
    """
    name = str(name_or_path)
    path = embedded_file() if name == EMBEDDED else Path(name)
    if path.is_file():
        return _shortened(_file_digest(path))
    if path.is_dir():
        return _shortened(_folder_digest(path))
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise InputError(f"{name}: no such file or folder.")
    return f"{name}@{_cached_commit(name)}"


def _shortened(digest: str) -> str:
    return digest[:16]


def _file_digest(path: Path) -> str:
    found = path.stat()
    return _digest_as_found(path, found.st_ino, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=1000)
def _digest_as_found(path: Path, *_: int) -> str:
    """The digest of a file. Its size and age are arguments, so a run reads an unchanged file only once."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder_digest(folder: Path) -> str:
    """The digest of all files in a folder. Of its manifest, the places of inputs do not count.

    An index is large and never the same twice, so its manifest is enough.
    """
    made_by = _our_manifest(folder / MANIFEST)
    if made_by is not None and made_by.settings.get("command") == INDEX:
        return made_by.identity()
    digest = hashlib.sha256()
    for name, path in sorted(_members(folder, ())):
        digest.update(f"{name} {_digest_of_member(path)}\n".encode())
    return digest.hexdigest()


def _members(folder: Path, above: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """The files of a folder and of those below it, with their names in it. Links to folders are followed."""
    above = (*above, os.path.realpath(folder))
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name in _BESIDE:
            continue
        if path.is_file():
            yield path.name, path
        elif path.is_dir() and os.path.realpath(path) not in above:
            yield from ((f"{path.name}/{name}", member) for name, member in _members(path, above))


def _our_manifest(path: Path) -> Manifest | None:
    """The manifest in a file; ``None`` if there is none, or one that another program wrote."""
    try:
        return Manifest.read(path) if path.is_file() else None
    except InputError:
        return None


def _digest_of_member(path: Path) -> str:
    if path.name == MANIFEST and (made_by := _our_manifest(path)) is not None:
        return made_by.identity()
    if path.name == "config.json":
        try:
            config = json.loads(path.read_bytes())
        except ValueError:
            config = None
        if isinstance(config, dict):
            kept = {name: value for name, value in config.items() if name not in _FIGURES}
            return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
    return _file_digest(path)


def _cached_commit(name: str) -> str:
    for kind in ("models", "datasets"):
        reference = Path(HF_HUB_CACHE) / f"{kind}--{name.replace('/', '--')}" / "refs" / "main"
        if reference.is_file():
            return reference.read_text(encoding="utf-8").strip()
    return "main"
