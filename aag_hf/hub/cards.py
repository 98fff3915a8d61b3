"""What all cards have in common, and when a card is written."""

import json
import os
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData, RepoCard
from huggingface_hub.constants import REPOCARD_NAME
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from yaml import YAMLError

from aag_hf.data.embedded import EMBEDDED_ON_HUB, is_embedded
from aag_hf.data.jsonl import write_whole
from aag_hf.errors import InputError

OURS = "<!-- aag-hf writes this card anew: delete this line to keep your own changes. -->"


def is_replaceable(card: str) -> bool:
    """Whether a card is ours, or the template of a library with nothing filled in."""
    return OURS in card or ModelCard.from_template(ModelCardData()).text.strip() in card


def replaceable_metadata(folder: Path) -> dict[str, Any] | None:
    """Metadata of the README.md in `folder`. Empty if there is none, ``None`` if it is somebody's own."""
    path = folder / REPOCARD_NAME
    if not path.is_file():
        return {}
    try:
        content = path.read_text(encoding="utf-8")
        return RepoCard(content, ignore_metadata_errors=True).data.to_dict() if is_replaceable(content) else None
    except (ValueError, YAMLError):
        return None


def write_card(card: RepoCard, folder: str | Path) -> bool:
    """Write `card` as the README.md of `folder`. If there is somebody's own, it stays and ``False`` is returned."""
    if replaceable_metadata(Path(folder)) is None:
        return False
    content = str(card) if str(card).endswith("\n") else f"{card}\n"
    write_whole(content.encode(), Path(folder) / REPOCARD_NAME)
    return True


def read_json(path: Path) -> dict[str, Any]:
    """The content of a saved configuration. Empty if there is none.

    Raises:
        InputError: The file is not a JSON object.
    """
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise InputError(f"{path}: damaged: expected a JSON object: save it again.")
    return config


def check_repository(repo_id: str) -> None:
    """Refuse a name that the Hub does not accept for a repository.

    Raises:
        InputError: The Hub does not accept it.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        raise InputError(f"repo_id is {repo_id!r}: expected the name of a repository, owner/name.") from None


def hub_name(name_or_path: str | None) -> str | None:
    """A model's name on the Hub. ``None`` for a folder of this machine."""
    if name_or_path is None:
        return None
    if is_embedded(name_or_path):
        return EMBEDDED_ON_HUB
    if os.path.exists(name_or_path):
        return None
    try:
        validate_repo_id(name_or_path)
    except HFValidationError:
        return None
    return name_or_path


def without_folder(value: Any) -> Any:
    """A setting as others may see it. Of a path, only the last part."""
    if isinstance(value, (list, tuple)):
        return [without_folder(item) for item in value]
    if isinstance(value, dict):
        return {name: without_folder(item) for name, item in value.items()}
    is_path = isinstance(value, str) and (value.startswith(("/", "~", "./", "../")) or os.path.exists(value))
    return Path(value).name if is_path else value
