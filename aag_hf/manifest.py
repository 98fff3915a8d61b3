"""Manifests: files beside outputs that name the settings, the content of every input, and the versions."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aag_hf.data.jsonl import write_whole
from aag_hf.errors import InputError

MANIFEST = "manifest.json"
_PACKAGES = ("aag-hf", "torch", "transformers", "peft")


def current_versions() -> dict[str, str]:
    """The versions of the packages that results depend on. Builds for other devices count as the same."""
    return {name: version(name).partition("+")[0] for name in _PACKAGES}


@dataclass(frozen=True)
class Manifest:
    """Everything that determines an output.

    Two manifests are the same if their settings and the contents of their inputs are the same. The places of inputs do
    not matter. Versions count only for unfinished outputs: a finished one stays valid when a package is replaced, but
    no output is made half by one version and half by another.

    Args:
        settings: Plain JSON values by name.
        inputs: The path and the content of each input, by name. [`~aag_hf.contents.content_of`] gives the content.
        versions: Versions of the packages.
    """

    settings: dict[str, Any]
    inputs: dict[str, dict[str, str]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=current_versions)

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Read a manifest that `write` wrote.

        Raises:
            InputError: The file is damaged or something else.
        """
        return cls.parse(read_object(path), path)

    @classmethod
    def parse(cls, found: Any, path: Path) -> "Manifest":
        """The manifest of a value that `to_json` gave and that was read from `path`.

        Raises:
            InputError: It is something else.
        """
        names = ("settings", "inputs", "versions")
        parts = [found[name] for name in names if isinstance(found.get(name), dict)] if isinstance(found, dict) else []
        if len(parts) < len(names) or not all(map(_is_input, parts[1].values())):
            raise InputError(f"{path}: does not tell what made this output: {_REMEDY}")
        return cls(*parts)

    def to_json(self) -> dict[str, Any]:
        """As JSON gives it back."""
        return json.loads(json.dumps({"settings": self.settings, "inputs": self.inputs, "versions": self.versions}))

    def write(self, path: Path) -> None:
        """Write it to `path`."""
        write_whole((json.dumps(self.to_json(), indent=2, sort_keys=True) + "\n").encode(), path)

    def identity(self) -> str:
        """Equal for manifests that are the same."""
        contents = {name: value["content"] for name, value in self.inputs.items()}
        return hashlib.sha256(json.dumps([self.settings, contents], sort_keys=True).encode()).hexdigest()

    def differences(self, found: "Manifest") -> list[str]:
        """The differences from `found`, setting by setting and input by input."""
        asked = self.to_json()
        told = differences(found.settings, asked["settings"])
        for name in sorted({*found.inputs, *self.inputs}):
            was, now = (inputs.get(name, {"path": None, "content": None}) for inputs in (found.inputs, self.inputs))
            if was["content"] != now["content"]:
                told.append(
                    f"{name} was {was['path']!r} with content {was['content']}, is {now['path']!r} with content "
                    f"{now['content']}"
                )
        return told

    def check(self, found: "Manifest", where: Path, *, resuming: bool = False) -> None:
        """Refuse an output of another run.

        Args:
            found: The output's manifest.
            where: The output.
            resuming: Whether this run would continue it, for which versions must be the same too.

        Raises:
            InputError: The manifests differ; the message names all differences.
        """
        told = self.differences(found)
        if resuming:
            told += differences(found.versions, self.versions)
        if told:
            raise InputError(f"{where}: holds another run ({'; '.join(told)}): {_REMEDY}")


_REMEDY = "choose another output, remove it, or pass --overwrite true to start anew."


def differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One line per name whose values differ."""
    return [
        f"{name} was {was.get(name)!r}, is {now.get(name)!r}"
        for name in sorted({*was, *now})
        if name not in was or name not in now or was[name] != now[name]
    ]


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        InputError: The file is damaged or holds something else.
    """
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise InputError(f"{path}: damaged, not valid JSON: {_REMEDY}") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds a JSON {type(found).__name__}, expected an object: {_REMEDY}")
    return found


def _is_input(value: Any) -> bool:
    return isinstance(value, dict) and {"path", "content"} <= value.keys()
