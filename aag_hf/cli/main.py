"""``aag <command>``: finds the command's module and runs it."""

import sys
from collections.abc import Sequence
from importlib import import_module

from aag_hf import __version__
from aag_hf.cli.boundary import WRONG_INPUT, run_command
from aag_hf.cli.commands import COMMANDS, closest


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        print("usage: aag <command> [--config recipe.yaml] [options]\n")
        print("\n".join(f"  {name:{width}}  {purpose}" for name, purpose in COMMANDS.items()))
        print("\n`aag <command> --help` lists a command's options.")
        return 0
    if arguments == ["--version"]:
        print(f"aag-hf {__version__}")
        return 0
    command, *rest = arguments
    if command not in COMMANDS:
        known = ", ".join(COMMANDS)
        print(
            f"aag: unknown command {command!r}{closest(command, COMMANDS)}: expected one of {known}.", file=sys.stderr
        )
        return WRONG_INPUT
    return run_command(command, lambda: import_module(f"aag_hf.cli.{command.replace('-', '_')}").main(rest))


if __name__ == "__main__":
    sys.exit(main())
