"""``aag evaluate``: measures readers and their controls."""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import chain, product
from pathlib import Path
from typing import Any, get_args

from aag_hf.awakening.aggregation import DraftOptions
from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.boundary import run_command
from aag_hf.cli.measured import BaseOptions, Reader, base_readers, named_inputs, saved_readers
from aag_hf.cli.options import LoadingOptions
from aag_hf.cli.output import JSON_HELP, plain_console, print_json
from aag_hf.cli.processes import claimed_by_first, device, is_main_process, processes, use_threads
from aag_hf.cli.stage import OVERWRITE, beside, manifest, refuse_inputs
from aag_hf.data.answers import Match
from aag_hf.data.jsonl import write_rows
from aag_hf.data.mapped import open_records
from aag_hf.data.progress import PartialOutput
from aag_hf.data.sampling import sample_records
from aag_hf.errors import InputError
from aag_hf.evaluation.comparison import PREDICTIONS
from aag_hf.evaluation.controls import Control, check_control
from aag_hf.evaluation.evaluator import evaluate_reader
from aag_hf.evaluation.report import plot_results, results_matrix, results_table, write_json
from aag_hf.evaluation.scores import METRICS, check_scorable
from aag_hf.manifest import MANIFEST, Manifest

Records = Sequence[dict[str, Any]]

PLOT = "results.png"


@dataclass
class EvaluateOptions(DraftOptions, BaseOptions):
    """Options of ``aag evaluate``."""

    model: list[str] = field(default_factory=list, metadata={"help": "Saved models; each gives a row of the table."})
    input: list[str] = field(
        default_factory=list,
        metadata={"help": "Records to answer: FILE, or NAME=FILE. Every reader answers each file."},
    )
    max_samples: int | None = field(
        default=None, metadata={"help": "Answer at most this many records per input, drawn with `seed`."}
    )
    output_dir: str = field(
        default="", metadata={"help": "Folder for results.json, results.png and predictions.jsonl."}
    )
    controls: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Controls to measure beside each reader whose adapter is made from questions or documents; those "
            f"that do not apply to a reader are passed over. Some of {', '.join(get_args(Control)[1:])}."
        },
    )
    batch_size: int = field(default=32, metadata={"help": "Questions per forward pass."})
    seed: int = field(default=29, metadata={"help": "Seed of the controls' shuffles and of all that is drawn."})
    match: Match = field(
        default="words", metadata={"help": "How answers are compared: words, or regex where answers are expressions."}
    )
    overwrite: bool = field(default=False, metadata={"help": OVERWRITE})
    json: bool = field(default=False, metadata={"help": JSON_HELP})


def evaluate(options: EvaluateOptions) -> list[dict[str, Any]]:
    """Measure every reader and its controls.

    Writes results.json, results.png and predictions.jsonl. Each row is saved once it is measured, so a stopped run
    continues. Several processes share the questions, and the first one writes.

    Returns:
        The rows of results.json, without their predictions.

    Raises:
        InputError: An option is missing or unknown, a file or model cannot be used, or the output is that of another
            run.
    """
    for name in ("input", "output_dir"):
        if not getattr(options, name):
            raise InputError(f"{name} is missing.")
    if not options.model and options.model_name_or_path is None:
        raise InputError("model is missing: name saved models, or a base model as model_name_or_path.")
    for control in options.controls:
        check_control(control)
    options.check()
    use_threads(options.threads)
    paths = named_inputs(options.input)
    inputs = {
        name: sample_records(open_records(path), options.max_samples, options.seed) for name, path in paths.items()
    }
    for name, records in inputs.items():
        check_scorable(records, options.match, name)
    saved = saved_readers(options.model, options.loading_arguments())
    readers = saved + base_readers(options, list(chain(*inputs.values())), options.seed)
    for reader in readers:
        options.check_reader(reader.config)
    _check(options, readers, inputs)
    made_by = _made_by(options, saved, paths)
    output = Path(options.output_dir) / "results.json"
    _check_beside(output, made_by, options.overwrite)
    is_main = is_main_process()
    with claimed_by_first(output, made_by, options.overwrite) as finished:
        if finished:
            return _read_results(output)
        partial = PartialOutput(output, made_by)
        rows = partial.read()
        _check_partial(rows, [row for reader in readers for row in _planned(options, reader, inputs)], partial.path)
        if (together := processes()) is not None:
            together.wait_for_everyone()
        for row in _missing_rows(options, readers, inputs, len(rows)):
            rows.append(row)
            if is_main:
                partial.append([row])
        predictions = [{"reader": row["name"]} | one for row in rows for one in row.pop("predictions")]
        if is_main:
            write_rows(predictions, output.with_name(PREDICTIONS))
            plot_results(rows, output.with_name(PLOT), _title(inputs))
            partial.finish(lambda: write_json(rows, output))
    return rows


def _check(options: EvaluateOptions, readers: Sequence[Reader], inputs: dict[str, Records]) -> None:
    """Before any model is loaded, refuse what would stop a run halfway, or make two rows of one name."""
    names = Counter(names["name"] for reader in readers for names, _, _ in _planned(options, reader, inputs))
    name, count = names.most_common(1)[0]
    if count > 1:
        raise InputError(f"model: {count} rows of the results would be called {name!r}: rename a model's folder.")
    for records in inputs.values():
        for reader in readers:
            reader.check(records)
        if "shuffled_within_relation" in options.controls and not all("relation" in record for record in records):
            raise InputError("control shuffled_within_relation needs records with a relation.")


def _check_beside(output: Path, made_by: Manifest, overwrite: bool) -> None:
    """Refuse to replace an input, or files of somebody else, by what is written beside `output`."""
    is_ours = overwrite or any(path.exists() for path in (output, beside(output, MANIFEST), beside(output, "partial")))
    for name in (PREDICTIONS, PLOT):
        path = output.with_name(name)
        refuse_inputs(path, made_by)
        if path.exists() and not is_ours:
            raise InputError(
                f"{path}: exists, and no {output.name} tells what made it: choose another output_dir, or pass "
                "--overwrite true."
            )


def _read_results(path: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        rows = None
    if not (isinstance(rows, list) and rows and all(map(_is_result, rows))):
        raise InputError(f"{path}: damaged: delete it to measure again.")
    if not path.with_name(PREDICTIONS).exists():
        raise InputError(f"{path.with_name(PREDICTIONS)}: was deleted: pass --overwrite true to measure again.")
    return rows


def _check_partial(rows: list[Any], planned: Sequence[tuple[dict[str, Any], Records, Control]], path: Path) -> None:
    """Refuse rows of a stopped run that are not the first of those planned."""
    for row, (names, records, _) in zip(rows, planned, strict=False):
        predictions = row.get("predictions") if _is_result(row) and names.items() <= row.items() else None
        is_whole = isinstance(predictions, list) and all(isinstance(one, dict) for one in predictions)
        if not is_whole or len(row["predictions"]) != len(records):
            raise InputError(f"{path}: damaged: delete it to start again.")
    if len(rows) > len(planned):
        raise InputError(f"{path}: damaged: delete it to start again.")


def _is_result(row: Any) -> bool:
    texts, numbers = ("name", "reader", "data"), ("count", *METRICS, "input_tokens", "seconds")
    return (
        isinstance(row, dict)
        and all(isinstance(row.get(name), str) for name in texts)
        and all(type(row.get(name)) in (int, float) for name in numbers)
    )


def _made_by(options: EvaluateOptions, saved: Sequence[Reader], paths: dict[str, str]) -> Manifest:
    told = {"controls", "batch_size", "seed", "match"}
    if options.model_name_or_path is not None:
        of_base = {option.name for option in fields(BaseOptions)} - {option.name for option in fields(LoadingOptions)}
        told |= of_base - {"model_name_or_path", "shots_file"}
    settings = {name: getattr(options, name) for name in sorted(told)} | options.loading_settings()
    settings |= {"names": list(paths)} if len(paths) > 1 else {}
    if options.several:
        settings |= {one.name: getattr(options, one.name) for one in fields(DraftOptions) if one.name != "scorer"}
    settings |= {} if options.max_samples is None else {"max_samples": options.max_samples}
    return manifest(
        "evaluate",
        settings,
        model=options.model,
        base=[reader.config.base_model_name_or_path or "" for reader in saved],
        model_name_or_path=options.model_name_or_path,
        shots_file=options.shots_file,
        scorer=options.scorer if options.several else None,
        input=list(paths.values()),
    )


def _missing_rows(
    options: EvaluateOptions, readers: Sequence[Reader], inputs: dict[str, Records], done: int
) -> Iterator[dict[str, Any]]:
    """The rows of all readers, inputs and controls after the first `done`. Only models of missing rows are loaded."""
    for reader in readers:
        planned = _planned(options, reader, inputs)
        waiting, done = planned[done:], max(done - len(planned), 0)
        if not waiting:
            continue
        model = reader.load().to(device())
        for names, records, control in waiting:
            result = evaluate_reader(
                model,
                records,
                control=control,
                batch_size=options.batch_size,
                seed=options.seed,
                match=options.match,
                processes=processes(),
                drafts=options,
            )
            yield names | {"trained_parameters": getattr(model.config, "trained_parameters", None)} | result


def _planned(
    options: EvaluateOptions, reader: Reader, inputs: dict[str, Records]
) -> list[tuple[dict[str, Any], Records, Control]]:
    """The rows of a reader: their names, the records that are asked, and the control."""
    chosen = set(reader.controls) & set(options.controls)
    controls: list[Control] = ["none", *sorted(chosen, key=options.controls.index)]
    planned = []
    for (data, records), control in product(inputs.items(), controls):
        told = [reader.name, *([options.name] if options.several else [])]
        measured = ", ".join([*told, *([] if control == "none" else [control.replace("_", " ")])])
        name = measured if len(inputs) == 1 else f"{measured} on {data}"
        planned.append(({"name": name, "reader": measured, "data": data}, records, control))
    return planned


def _title(inputs: dict[str, Records]) -> str:
    return " and ".join(f"{len(records)} questions of {name}" for name, records in inputs.items())


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    (options,) = parse_arguments("evaluate", (EvaluateOptions,), argv)
    rows = evaluate(options)
    if not is_main_process():
        return
    if options.json:
        print_json(rows)
        return
    names = list(dict.fromkeys(row["data"] for row in rows))
    if len(names) == 1:
        table = results_table(rows, f"{rows[0]['count']} questions of {options.input[0]}")
    else:
        table = results_matrix(rows, f"exact match, %, on {', '.join(names)}")
    plain_console().print(table, soft_wrap=False)


if __name__ == "__main__":
    sys.exit(run_command("evaluate", lambda: main(sys.argv[1:])))
