"""``aag <command>``: finds the command's module and runs it."""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

from transformers.utils import logging

from aag_hf.cli.arguments import COMMANDS
from aag_hf.errors import InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        print("usage: aag <command> [--config recipe.yaml] [options]\n")
        print("\n".join(f"  {name:{width}}  {purpose}" for name, purpose in COMMANDS.items()))
        print("\n`aag <command> --help` lists a command's options.")
        return 0
    command, *rest = arguments
    if command not in COMMANDS:
        print(f"aag: unknown command {command!r}; expected one of {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    # Loading bars of every model and notices of libraries to each other drown what a command says itself.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    logging.disable_progress_bar()
    try:
        import_module(f"aag_hf.cli.{command.replace('-', '_')}").main(rest)
    except InputError as error:
        print(f"aag {command}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
