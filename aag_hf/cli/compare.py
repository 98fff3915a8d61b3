"""``aag compare``: compares two readers question by question."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.boundary import run_command
from aag_hf.cli.output import plain_console
from aag_hf.errors import InputError
from aag_hf.evaluation.comparison import PREDICTIONS, compare_predictions, differing_questions, read_predictions
from aag_hf.evaluation.scores import METRICS


@dataclass
class CompareOptions:
    """Options of ``aag compare``."""

    results: list[str] = field(
        default_factory=list,
        metadata={"help": "Two outputs of `aag evaluate`, as folders or predictions.jsonl; the flag may be left out."},
    )
    rows: list[str] = field(
        default_factory=list, metadata={"help": "The name of a row of each output; needed if an output has several."}
    )


def compare(options: CompareOptions) -> None:
    """Print how two readers differ: in every metric, by McNemar's test, and on which questions.

    Raises:
        InputError: There are not two outputs, one has no such row, or the readers were asked different questions.
    """
    if len(options.results) != 2:
        raise InputError(f"results: expected two outputs of `aag evaluate`, found {len(options.results)}.")
    if len(options.rows) not in (0, 2):
        raise InputError(f"rows: expected the name of a row in each output, found {len(options.rows)}.")
    names, rows = [], []
    for path, name in zip(options.results, options.rows or (None, None)):
        readers = read_predictions(Path(path) / PREDICTIONS if Path(path).is_dir() else Path(path))
        names.append(_chosen(path, list(readers), name))
        rows.append(readers[names[-1]])
    first, second = rows
    compared = compare_predictions(first, second)
    console = plain_console()
    console.print(f"{compared['count']} questions\nA: {names[0]}\nB: {names[1]}")
    console.print(_table(compared), soft_wrap=False)
    console.print(
        f"Right in A alone {compared['only_first']}, in B alone {compared['only_second']}: McNemar's test p = "
        f"{compared['mcnemar_p']:.3g}\n"
    )
    for pair in differing_questions(first, second):
        console.print(f"{pair[0]['question']} ({'; '.join(pair[0]['answers'])})")
        for letter, row in zip("AB", pair):
            console.print(f"  {letter} {'✓' if row['exact_match'] else '✗'} {row['prediction']}")


def _chosen(path: str, known: list[str], name: str | None) -> str:
    told = ", ".join(map(repr, known))
    if name is None and len(known) > 1:
        raise InputError(f"{path}: has {len(known)} rows: choose one of each output with --rows: {told}.")
    if name is not None and name not in known:
        raise InputError(f"{path}: has no row {name!r}: expected one of {told}.")
    return name or known[0]


def _table(compared: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("%")
    for heading in ("A", "B", "B − A"):
        table.add_column(heading, justify="right", no_wrap=True)
    for metric in METRICS:
        one = compared[metric]
        stderr = "" if one["stderr"] is None else f" ± {one['stderr']:.1f}"
        table.add_row(metric, f"{one['first']:.1f}", f"{one['second']:.1f}", f"{one['difference']:+.1f}{stderr}")
    return table


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given and not given[0].startswith("-"):
        given = ["--results", *given]
    (options,) = parse_arguments("compare", (CompareOptions,), given)
    compare(options)


if __name__ == "__main__":
    sys.exit(run_command("compare", lambda: main(sys.argv[1:])))
