"""What adapters are called between `aag serve` and vLLM, and where they lie. vLLM imports it: no library is loaded."""

import os
import re
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Literal

ADAPTERS = "AAG_ADAPTERS"
_RAM_DISK = Path("/dev/shm")
_NAME = re.compile(r"aag:(question|document):([0-9a-f]{32})")

Kind = Literal["question", "document"]


def adapter_name(kind: Kind, of: str, reader: str) -> str:
    """The name under which vLLM is asked for an adapter.

    Args:
        kind: What it is made from.
        of: The question, or the document's id.
        reader: A digest of the reader, whose adapters differ from another's.
    """
    return f"aag:{kind}:{sha256(f'{reader} {of}'.encode()).hexdigest()[:32]}"


def adapter_folder_name(name: str) -> str | None:
    """The folder of an adapter, without its place; ``None`` for a name that is no adapter's."""
    found = _NAME.fullmatch(name)
    return found and f"{found[1]}-{found[2]}"


def name_of_folder(folder: str) -> str | None:
    """The name of the adapter that lies in a folder of this name; ``None`` if no adapter does."""
    name = f"aag:{folder.replace('-', ':')}"
    return name if _NAME.fullmatch(name) else None


def adapters_path() -> Path:
    """The folder of all adapters: ``$AAG_ADAPTERS``, else one of this user in memory, else one on the disk."""
    if ADAPTERS in os.environ:
        return Path(os.environ[ADAPTERS])
    in_memory = _RAM_DISK.is_dir() and os.access(_RAM_DISK, os.W_OK)
    return (_RAM_DISK if in_memory else Path(tempfile.gettempdir())) / f"aag-adapters-{os.getuid()}"
