"""Options of a command: dataclass fields, set by flags and by its section of a recipe."""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from aag_hf.cli.commands import COMMANDS, closest
from aag_hf.cli.help import HelpAll, has_options_of_others
from aag_hf.cli.launcher import check_launcher
from aag_hf.cli.parser import OptionParser, StrictParser, check_value
from aag_hf.cli.recipes import apply_recipe
from aag_hf.errors import InputError

# Options of the Trainer that hold keyword arguments.
MAPPINGS = ("lr_scheduler_kwargs", "gradient_checkpointing_kwargs", "activation_checkpointing_kwargs")


def parse_arguments(command: str, dataclass_types: Sequence[type], argv: Sequence[str] | None) -> tuple[Any, ...]:
    """Parse flags, and with ``--config recipe.yaml`` the recipe's section named after the command.

    Flags win over the recipe. A recipe may also be flat, without sections, for one command alone.

    Args:
        command: A key of `COMMANDS`.
        dataclass_types: Dataclasses whose fields are the options.
        argv: The arguments after the command's name; ``None`` reads ``sys.argv``.

    Returns:
        One instance per dataclass, in their order.

    Raises:
        InputError: There is no such option or recipe, an option does not take its value, or a launcher's variable is
            no number.
    """
    does = COMMANDS[command]
    description = f"{does[0].upper()}{does[1:]}."
    parser = OptionParser(dataclass_types, prog=f"aag {command}", description=description, allow_abbrev=False)
    parser.add_argument("--config", help="A recipe (YAML); flags given beside it win.")
    if has_options_of_others(dataclass_types):
        parser.add_argument("--help-all", action=HelpAll, help="List every option, also all of transformers' Trainer.")
    config_only = StrictParser(add_help=False, allow_abbrev=False)
    config_only.add_argument("--config")
    recipe, _ = config_only.parse_known_args(argv)
    if recipe.config is not None:
        apply_recipe(parser, Path(recipe.config), command)
    given = sys.argv[1:] if argv is None else list(argv)
    # Before argparse complains of a required option that was only misspelt.
    _refuse_unknown_flags(given, parser, command)
    values, loose = parser.parse_known_args(given)
    if loose:
        raise InputError(f"{loose[0]!r} stands alone: options are given as --name value: see `aag {command} --help`.")
    for name, value in vars(values).items():
        check_value(name, value)
    _check_mappings(values)
    check_launcher()
    _check_trackers(getattr(values, "report_to", None))
    return tuple(
        options(**{option.name: getattr(values, option.name) for option in fields(options) if option.init})
        for options in dataclass_types
    )


def _check_mappings(values: Namespace) -> None:
    """Refuse what is no mapping where the Trainer's options take one, as itself or as JSON."""
    for name in MAPPINGS:
        value = getattr(values, name, None)
        if value is not None and not _is_mapping(value):
            raise InputError(f'{name} is {value!r}: expected a JSON object, such as {{"name": 1}}.')


def _is_mapping(value: Any) -> bool:
    try:
        return isinstance(json.loads(value) if isinstance(value, str) else value, dict)
    except (ValueError, RecursionError):
        return False


def _refuse_unknown_flags(given: Sequence[str], parser: ArgumentParser, command: str) -> None:
    known = [flag for action in parser._actions for flag in action.option_strings]
    for flag in (argument.partition("=")[0] for argument in given if argument.startswith("--")):
        if flag not in known:
            raise InputError(f"unknown option {flag}{closest(flag, known)}: see `aag {command} --help`.")


def _check_trackers(report_to: str | None) -> None:
    """Refuse a tracker that is not installed, before a model is loaded."""
    if report_to in (None, "none", "all"):
        return
    from transformers.integrations.integration_utils import (
        INTEGRATION_TO_CALLBACK,
        get_available_reporting_integrations,
    )

    if report_to not in INTEGRATION_TO_CALLBACK:
        near = closest(str(report_to), INTEGRATION_TO_CALLBACK)
        raise InputError(
            f"report_to is {report_to!r}{near}: expected one of none, all, {', '.join(INTEGRATION_TO_CALLBACK)}."
        )
    if report_to not in get_available_reporting_integrations():
        raise InputError(f"report_to is {report_to!r}, which is not installed: install it, or give none.")
