"""``aag evaluate``: measures readers and their controls."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from aag_hf.awakening import AwakeningModel
from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.options import LoadingOptions, device, processes, use_threads
from aag_hf.data.records import read_records
from aag_hf.errors import InputError
from aag_hf.evaluation.controls import Control
from aag_hf.evaluation.evaluator import evaluate_reader
from aag_hf.evaluation.report import plot_results, results_table, write_json


@dataclass
class EvaluateOptions(LoadingOptions):
    """Options of ``aag evaluate``."""

    model: list[str] = field(default_factory=list, metadata={"help": "Saved models; each is a row of the table."})
    input: str = field(default="", metadata={"help": "Records to answer."})
    output_dir: str = field(default="", metadata={"help": "Where results.json and results.png go."})
    controls: list[str] = field(
        default_factory=list,
        metadata={"help": f"Also measured for readers that take features: some of {', '.join(get_args(Control)[1:])}."},
    )
    batch_size: int = field(default=32, metadata={"help": "Questions a forward pass."})
    seed: int = field(default=29, metadata={"help": "Of the controls' shuffles."})


def evaluate(options: EvaluateOptions) -> list[dict[str, Any]]:
    """Measure every model and, where it takes features, its controls; writes results.json and results.png.

    Several processes share the questions; the first one writes.

    Raises:
        InputError: An option is missing or unknown, or a file cannot be used.
    """
    for name in ("model", "input", "output_dir"):
        if not getattr(options, name):
            raise InputError(f"{name} is missing.")
    for control in options.controls:
        if control not in get_args(Control):
            raise InputError(f"control must be one of {', '.join(get_args(Control))}, got {control!r}.")
    use_threads(options.threads)
    all_processes = processes()
    records = read_records(options.input)
    rows = []
    for path in options.model:
        model = AwakeningModel.from_pretrained(path, **options.loading_arguments()).to(device())
        for control in ("none", *(options.controls if model.question_encoder is not None else ())):
            result = evaluate_reader(
                model,
                records,
                control=control,
                batch_size=options.batch_size,
                seed=options.seed,
                processes=all_processes,
            )
            name = Path(path).name + ("" if control == "none" else f", {control.replace('_', ' ')}")
            rows.append(
                {"name": name, "trained_parameters": getattr(model.config, "trained_parameters", None)} | result
            )
    if all_processes.is_main_process:
        output_dir = Path(options.output_dir)
        output_dir.mkdir(parents=True, exist_ok=True)
        write_json(rows, output_dir / "results.json")
        plot_results(rows, output_dir / "results.png", f"{len(records)} questions of {Path(options.input).name}")
    all_processes.wait_for_everyone()
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    (options,) = parse_arguments("evaluate", (EvaluateOptions,), argv)
    rows = evaluate(options)
    if processes().is_main_process:
        Console().print(results_table(rows, f"{rows[0]['count']} questions of {options.input}"))


if __name__ == "__main__":
    main(sys.argv[1:])
