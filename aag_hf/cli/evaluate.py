"""``aag evaluate``: measures readers and their controls."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from aag_hf.awakening import AwakeningConfig, AwakeningModel
from aag_hf.awakening.model import saved_config, saved_directory
from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.boundary import run_command
from aag_hf.cli.options import OVERWRITE, LoadingOptions, device, processes, use_threads
from aag_hf.cli.output import plain_console
from aag_hf.cli.stage import claimed_by_first, manifest
from aag_hf.data.answers import Match
from aag_hf.data.mapped import open_records
from aag_hf.data.progress import PartialOutput
from aag_hf.errors import InputError
from aag_hf.evaluation.controls import Control
from aag_hf.evaluation.evaluator import evaluate_reader, given_contexts
from aag_hf.evaluation.report import plot_results, results_table, write_json
from aag_hf.evaluation.scores import check_groups


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
    match: Match = field(
        default="words", metadata={"help": "How answers are compared: words, or regex where answers are expressions."}
    )
    overwrite: bool = field(default=False, metadata={"help": OVERWRITE})


def evaluate(options: EvaluateOptions) -> list[dict[str, Any]]:
    """Measure every model and, where it takes features, its controls; writes results.json and results.png.

    Each row is kept as soon as it is there: a stopped run continues. Several processes share the questions; the first
    one writes.

    Raises:
        InputError: An option is missing or unknown, a file or model cannot be used, or the results there are of another
            run.
    """
    for name in ("model", "input", "output_dir"):
        if not getattr(options, name):
            raise InputError(f"{name} is missing.")
    for control in options.controls:
        if control not in get_args(Control):
            raise InputError(f"control must be one of {', '.join(get_args(Control))}, got {control!r}.")
    use_threads(options.threads)
    names = short_names(options.model)
    records = open_records(options.input)
    check_groups(records)
    configs = [_check_model(path, records, options.controls) for path in options.model]
    settings = {
        n: getattr(options, n) for n in ("dtype", "attn_implementation", "controls", "batch_size", "seed", "match")
    }
    bases = [config.base_model_name_or_path or "" for config in configs]
    made_by = manifest("evaluate", settings, model=options.model, base=bases, input=options.input)
    output = Path(options.output_dir) / "results.json"
    is_main = processes().is_main_process
    with claimed_by_first(output, made_by, options.overwrite, processes()) as finished:
        if finished:
            return json.loads(output.read_bytes())
        partial = PartialOutput(output, made_by)
        rows = partial.read()
        processes().wait_for_everyone()
        for row in _missing_rows(options, names, records, len(rows)):
            rows.append(row)
            if is_main:
                partial.append([row])
        if is_main:
            title = f"{len(records)} questions of {Path(options.input).name}"
            plot_results(rows, output.with_name("results.png"), title)
            partial.finish(lambda: write_json(rows, output))
    return rows


def _missing_rows(
    options: EvaluateOptions, names: Sequence[str], records: Sequence[dict[str, Any]], done: int
) -> Iterator[dict[str, Any]]:
    """The rows of all models and controls after the first `done`; a model without rows to come is not loaded."""
    for path, name in zip(options.model, names, strict=True):
        controls = ["none", *(options.controls if (saved_directory(path) / "question_encoder").is_dir() else ())]
        waiting, done = controls[done:], max(done - len(controls), 0)
        if not waiting:
            continue
        model = AwakeningModel.from_pretrained(path, **options.loading_arguments()).to(device())
        for control in waiting:
            result = evaluate_reader(
                model,
                records,
                control=control,
                batch_size=options.batch_size,
                seed=options.seed,
                match=options.match,
                processes=processes(),
            )
            row = name + ("" if control == "none" else f", {control.replace('_', ' ')}")
            yield {"name": row, "trained_parameters": getattr(model.config, "trained_parameters", None)} | result


def short_names(paths: Sequence[str]) -> list[str]:
    """The paths' last parts, as many as it takes to tell them apart.

    Raises:
        InputError: One is named twice.
    """
    parts = [Path(path).resolve().parts for path in paths]
    for path, own in zip(paths, parts):
        if parts.count(own) > 1:
            raise InputError(f"model {path}: is named twice.")
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(own[-length:]) for own in parts]
        if len(set(names)) == len(names):
            break
    return names


def _check_model(path: str, records: Sequence[dict[str, Any]], controls: Sequence[str]) -> AwakeningConfig:
    """The configuration of a saved model that can answer the records, before any model is loaded."""
    directory = saved_directory(path)
    config = saved_config(directory)
    if config.context != "generated" or not (directory / "generator").is_dir():
        given_contexts(config, records)
    if "shuffled_within_relation" in controls and not all("relation" in record for record in records):
        raise InputError("control shuffled_within_relation needs records with a relation.")
    return config


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    (options,) = parse_arguments("evaluate", (EvaluateOptions,), argv)
    rows = evaluate(options)
    if processes().is_main_process:
        plain_console().print(results_table(rows, f"{rows[0]['count']} questions of {options.input}"), soft_wrap=False)


if __name__ == "__main__":
    sys.exit(run_command("evaluate", lambda: main(sys.argv[1:])))
