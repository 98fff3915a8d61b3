"""The help of a command: its own options by subject, and on request those of the Trainer."""

import re
import shutil
from argparse import SUPPRESS, Action, ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from typing import Any

# The Trainer's options that nearly every run sets; `--help-all` lists the rest.
USUAL = {
    "output_dir",
    "max_steps",
    "num_train_epochs",
    "learning_rate",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "eval_strategy",
    "save_steps",
    "logging_steps",
    "report_to",
    "seed",
}


class HelpFormatter(ArgumentDefaultsHelpFormatter):
    """One flag per option, as wide as the terminal; 120 columns where there is none."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=32, width=shutil.get_terminal_size((120, 24)).columns - 2)

    def _format_action_invocation(self, action: Action) -> str:
        # transformers' parser takes each flag with hyphens too, and a truth value as `--no_` and the flag.
        flags = action.option_strings
        flag = ", ".join(flags) if action.dest == "help" else flags[0]
        if action.nargs == 0:
            return flag
        if action.nargs == "?":
            return f"{flag} [true|false]"
        metavar = self._metavar_formatter(action, action.dest.rpartition("_")[2].upper())(1)[0]
        return f"{flag} {metavar}" + (" …" if action.nargs in ("+", "*") else "")

    def _get_help_string(self, action: Action) -> str | None:
        return action.help if action.default in (None, "", [], SUPPRESS) else super()._get_help_string(action)


class HelpAll(Action):
    """``--help-all`` lists every option and ends the command."""

    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any):
        super().__init__(option_strings, dest, nargs=0, default=SUPPRESS, help=kwargs.get("help"))

    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: Any, option_string: str | None = None
    ) -> None:
        """Print the help."""
        print(format_options(parser, getattr(parser, "dataclass_types", ()), everything=True), end="")
        parser.exit()


def format_options(parser: ArgumentParser, dataclass_types: Iterable[type], everything: bool = False) -> str:
    """The help of `parser`: under the first line of each dataclass's docstring, the options that it declares.

    Args:
        parser: The command's parser.
        dataclass_types: Where its options come from.
        everything: Also list all options of transformers' Trainer.
    """
    listed = [action for action in parser._actions if not action.option_strings[0].startswith("--no_")]
    left = {action.dest: action for action in listed}
    formatter = HelpFormatter(parser.prog)
    formatter.add_text(f"usage: {parser.prog} [--config recipe.yaml] [options]")
    formatter.add_text(parser.description)
    hidden = 0
    for declared_in, names in _names_by_class(dataclass_types).items():
        actions = [left.pop(name) for name in names if name in left]
        title = re.sub(r"\[?`+~?(?:[\w.]+\.)?([\w -]+)`+\]?", r"\1", _first_line(declared_in))
        if not _is_ours(declared_in):
            shown = actions if everything else [action for action in actions if action.dest in USUAL]
            hidden += len(actions) - len(shown)
            title, actions = f"From transformers' {declared_in.__name__}", shown
        if actions:
            formatter.start_section(title)
            formatter.add_arguments(actions)
            formatter.end_section()
    formatter.start_section("Of every command")
    formatter.add_arguments(left.values())
    formatter.end_section()
    if hidden:
        formatter.add_text(f"`{parser.prog} --help-all` also lists {hidden} options of transformers' Trainer.")
    return formatter.format_help()


def has_options_of_others(dataclass_types: Iterable[type]) -> bool:
    """Whether some of the options are not this package's own."""
    return not all(map(_is_ours, _names_by_class(dataclass_types)))


def _names_by_class(dataclass_types: Iterable[type]) -> dict[type, list[str]]:
    """The options by the class that first declares them, the most specific classes first."""
    classes = list(dict.fromkeys(parent for one in dataclass_types for parent in one.__mro__ if parent is not object))
    declared_in = {name: one for one in classes for name in vars(one).get("__annotations__", {})}
    return {one: [name for name, home in declared_in.items() if home is one] for one in classes}


def _is_ours(declared_in: type) -> bool:
    return not declared_in.__module__.startswith("transformers.")


def _first_line(declared_in: type) -> str:
    return (declared_in.__doc__ or "").strip().partition("\n")[0].rstrip(".")
