"""Options of a command: dataclass fields, set by flags and by its section of a recipe."""

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from trl import TrlParser

from aag_hf.errors import InputError

COMMANDS = {
    "data": "convert a data set into records",
    "convert-fid": "turn an original Fusion-in-Decoder checkpoint into a model directory",
    "retrieve": "find passages for each question with BM25",
    "compress": "compress each question's passages with LongLLMLingua",
    "train-generator": "stage 1: train the context generator",
    "generate": "write a context for each question from memory",
    "train": "stage 2: train a reader, with or without a teacher",
    "evaluate": "measure a reader and its controls",
    "ask": "ask a saved model a question",
    "export": "turn one question's adapter into a plain PEFT LoRA",
    "publish": "write the card of a saved model, or of data, and upload it",
    "quickstart": "run every stage at a small size",
}


def parse_arguments(command: str, dataclass_types: Sequence[type], argv: Sequence[str] | None) -> tuple[Any, ...]:
    """Parse flags, and with ``--config recipe.yaml`` the recipe's section named after the command.

    Flags win over the recipe. A recipe may also be flat, without sections, for one command alone.

    Args:
        command: A key of `COMMANDS`.
        dataclass_types: Dataclasses whose fields are the options.
        argv: The arguments after the command's name; ``None`` reads ``sys.argv``.

    Returns:
        One instance a dataclass, in their order.

    Raises:
        InputError: The recipe is missing, not a mapping, or has a key no option answers to.
    """
    parser = TrlParser(dataclass_types, prog=f"aag {command}", description=COMMANDS[command].capitalize() + ".")
    parser.add_argument("--config", help="A recipe (YAML); flags given beside it win.")
    config_only = ArgumentParser(add_help=False, allow_abbrev=False)
    config_only.add_argument("--config")
    recipe, remaining = config_only.parse_known_args(argv)
    if recipe.config is not None:
        section = read_recipe(Path(recipe.config), command)
        unknown = parser.set_defaults_with_config(**section)[::2]
        if unknown:
            names = ", ".join(name.removeprefix("--") for name in unknown)
            raise InputError(
                f"{recipe.config}: section {command!r} has unknown keys {names}: see `aag {command} --help`."
            )
    *parsed, _ = parser.parse_args_into_dataclasses(args=remaining)
    return tuple(parsed)


def read_recipe(path: Path, command: str) -> dict[str, Any]:
    """The options that the recipe at `path` gives to `command`."""
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such recipe.") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(recipe, dict):
        raise InputError(f"{path}: expected a mapping of options, found {type(recipe).__name__}.")
    sections = {key for key, value in recipe.items() if isinstance(value, dict) and key in COMMANDS}
    if not sections:
        return recipe
    strangers = sorted(str(key) for key in set(recipe) - sections)
    if strangers:
        raise InputError(f"{path}: unknown sections {', '.join(strangers)}: expected some of {', '.join(COMMANDS)}.")
    if command not in recipe:
        raise InputError(f"{path}: has no section {command!r}, only {', '.join(sorted(sections))}.")
    return recipe[command]
