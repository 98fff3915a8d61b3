"""Recipes: YAML files with one section per command. Their values are converted and checked as flags are."""

import json
from argparse import Action, _HelpAction
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from aag_hf.cli.commands import COMMANDS, closest
from aag_hf.cli.parser import OptionParser, StrictParser, check_value
from aag_hf.errors import InputError

# Names, and "<<", which merges another mapping.
_KEYS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")


class _UniqueKeys(yaml.SafeLoader):
    """Reads YAML, and refuses a key that stands twice in a mapping; YAML would keep the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping at `node`."""
        seen: set[str] = set()
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.tag not in _KEYS:
                raise InputError(f"line {line}: key {key.value}: expected the name of an option.")
            if key.value in seen:
                raise InputError(f"line {line}: key {key.value!r} stands twice: keep one.")
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def apply_recipe(parser: OptionParser, path: Path, command: str) -> None:
    """Make the recipe's section for `command` the defaults of `parser`.

    Raises:
        InputError: The recipe cannot be read, or has a key or a value that the command's flags would not take.
    """
    options = {action.dest: action for action in parser._actions if not _is_for_the_parser(action)}
    nullable = _nullable(parser.dataclass_types)
    for name, value in read_recipe(path, command).items():
        where = f"{path}, {command}: {name}"
        if name not in options:
            raise InputError(f"{where}: unknown key{closest(name, options)}: see `aag {command} --help`.")
        if value is None and name not in nullable:
            raise InputError(f"{where}: is null: expected a value; leave the key out for the default.")
        try:
            chosen = None if value is None else _converted(options[name], name, value)
            check_value(name, chosen)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        options[name].default = chosen
        options[name].required = False


def read_recipe(path: Path, command: str) -> dict[str, Any]:
    """The options that the recipe at `path` gives to `command`.

    Raises:
        InputError: The recipe cannot be read, is no mapping, or has no section for `command`.
    """
    recipe = _load(path)
    if not isinstance(recipe, dict):
        raise InputError(f"{path}: expected a mapping of options, found {type(recipe).__name__}.")
    sections = {key for key, value in recipe.items() if key in COMMANDS and isinstance(value, dict)}
    if not sections:
        if command in recipe:
            found = type(recipe[command]).__name__
            raise InputError(f"{path}: section {command!r}: expected a mapping of options, found {found}.")
        return recipe
    for stranger in sorted(set(recipe) - sections):
        near = closest(stranger, COMMANDS)
        raise InputError(f"{path}: unknown section {stranger}{near}: expected some of {', '.join(COMMANDS)}.")
    if command not in recipe:
        raise InputError(f"{path}: has no section {command!r}, only {', '.join(sorted(sections))}.")
    return recipe[command]


def _load(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8-sig")
        return yaml.load(text, Loader=_UniqueKeys)  # nosec B506 # a SafeLoader
    except FileNotFoundError:
        raise InputError(f"{path}: no such recipe.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}): convert it to UTF-8.") from None
    except InputError as error:
        raise InputError(f"{path}, {error}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path}: not valid YAML: {error}") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deeply: expected sections with options.") from None


def _converted(action: Action, name: str, value: Any) -> Any:
    """`value` as the option's flag would read it."""
    takes_list = action.nargs == "+"
    if takes_list and not isinstance(value, list):
        raise InputError(f"expected a list, such as [{_text(value)}], found {type(value).__name__}.")
    if isinstance(value, list) and not (takes_list and value):
        raise InputError(f"expected {'at least one entry' if takes_list else 'one value, found a list'}.")
    alone = StrictParser(add_help=False, allow_abbrev=False)
    alone._add_action(action)
    flag = [f"--{name}", *map(_text, value)] if takes_list else [f"--{name}={_text(value)}"]
    return getattr(alone.parse_args(flag), name)


def _text(value: Any) -> str:
    """A YAML value, written as a flag's value."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        try:
            return json.dumps(value, default=str)
        except (ValueError, RecursionError):
            raise InputError("holds itself, by an anchor: expected a mapping that ends.") from None
    if value is None or isinstance(value, (list, set, bytes)):
        raise InputError(f"expected text, a number, true or false, found {type(value).__name__}.")
    return str(value)


def _nullable(dataclass_types: Any) -> set[str]:
    """Options that may be null."""
    hints = {name: hint for options in dataclass_types for name, hint in get_type_hints(options).items()}
    names = {option.name for options in dataclass_types for option in fields(options)}
    return {name for name in names if type(None) in get_args(hints[name])}


def _is_for_the_parser(action: Action) -> bool:
    negated = any(flag.startswith("--no_") for flag in action.option_strings) and not action.dest.startswith("no_")
    return negated or isinstance(action, _HelpAction) or action.dest == "config"
