"""Trains readers over a grid of settings and seeds, and measures each under several conditions.

Every figure is one line of ``study.csv``. Lines that are there already are not measured again, so a stopped study goes
on where it stopped, and a grown grid adds its new lines.

    python benchmarks/quality/study.py benchmarks/quality/study.yaml --nq FOLDER
"""

import argparse
import csv
import gc
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from conditions import Measured
from data import Split, load_split, unrelated_texts
from transformers import set_seed

from aag_hf.awakening import AwakeningModel
from aag_hf.awakening.loading import load_language_model
from aag_hf.cli.train_options import TrainOptions
from aag_hf.cli.untrained import STATISTICS_FROM, calibrate_on, documents_of, untrained_model, upper_layers
from aag_hf.collators import RecordDocuments
from aag_hf.data.contexts import context_of
from aag_hf.trainers import ContextDistillationConfig, ContextDistillationTrainer
from aag_hf.trainers.lower_layers import WithLowerStates

COLUMNS = ("run", "data", "seed", "condition", "questions", "exact_match", "standard_error", "train_seconds", "seconds")
MODEL = {"model_name_or_path": "embedded", "dtype": "auto", "chat": False}
TRAINING = {
    "per_device_train_batch_size": 16,
    "warmup_steps": 40,
    "lr_scheduler_type": "linear",
    "adam_beta2": 0.98,
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
    "logging_steps": 50,
    "save_strategy": "no",
    "report_to": [],
    "prediction_loss_only": True,
    "dataloader_pin_memory": False,
    "disable_tqdm": True,
}


@dataclass(frozen=True)
class Run:
    """One line of the grid.

    Args:
        name: In the column ``run``.
        data: What it is trained on, by name.
        seeds: One reader is trained per seed.
        tests: By the name of what is asked, the conditions that are measured; see `conditions.Measured.measure`.
        reader: Options of ``aag train``, beside `MODEL`.
        training: Arguments of the trainer, beside `TRAINING`.
    """

    name: str
    data: str
    seeds: list[int]
    tests: dict[str, list[str]]
    reader: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


class Study:
    """The runs of a grid, over one base model.

    Args:
        out: The table, which grows.
        splits: Loads the data of a name.
    """

    def __init__(self, out: Path, splits: dict[str, Split]):
        self.out = out
        self.splits = splits
        self.base = load_language_model(
            "embedded", False, **TrainOptions(train_file="grid", **MODEL).loading_arguments()
        )
        self.base.to("cuda" if torch.cuda.is_available() else "cpu")
        self._documents: dict[tuple[str, ...], RecordDocuments] = {}

    def run(self, run: Run) -> None:
        """Train and measure what the table lacks of a run."""
        for seed in run.seeds:
            done = {(row["data"], row["condition"]) for row in self.rows() if _is_of(row, run, seed)}
            missing = {
                data: [condition for condition in conditions if (data, condition) not in done]
                for data, conditions in run.tests.items()
            }
            if not any(missing.values()):
                continue
            start = time.perf_counter()
            model = self.trained(run, self.splits[run.data], seed)
            seconds = round(time.perf_counter() - start)
            for data, conditions in missing.items():
                measured = Measured(model, self.splits[data].test, unrelated_texts(data), seed)
                for condition in conditions:
                    row = {"run": run.name, "data": data, "seed": seed, "train_seconds": seconds}
                    row |= measured.measure(condition)
                    print({name: row[name] for name in COLUMNS}, flush=True)
                    self._append(row)
            del model, measured
            gc.collect()

    def trained(self, run: Run, split: Split, seed: int) -> AwakeningModel:
        """A reader whose adapter is made from documents, trained over the layers below it."""
        set_seed(seed)
        options = TrainOptions(train_file="grid", **MODEL | run.reader)
        arguments = ContextDistillationConfig(
            "runs/study", seed=seed, use_cpu=not torch.cuda.is_available(), **TRAINING | run.training
        )
        model = untrained_model(options, self.base, split.train)
        collator = model.reader_collator()
        collator.documents = self._documents_of(model, split)
        calibrate_on(model.reader, collator, split.train)
        upper = upper_layers(options, arguments, model)
        ContextDistillationTrainer(
            model=upper.model,
            args=arguments,
            train_dataset=split.train,
            data_collator=WithLowerStates(collator, upper),
        ).train()
        return model.eval()

    def _documents_of(self, model: AwakeningModel, split: Split) -> RecordDocuments:
        """The documents of a split. Runs share them where equal texts give the statistics: their reader is frozen."""
        passages = model.config.adapter_passages
        key = tuple(context_of(record, "passages", passages) or "" for record in split.train[:STATISTICS_FROM])
        if key in self._documents:
            self._documents[key].keep(split.train)
        else:
            self._documents[key] = documents_of(model, split.train)
        model.document_encoder = self._documents[key].encoder
        return self._documents[key]

    def rows(self) -> Sequence[dict[str, str]]:
        """The table so far."""
        if not self.out.exists():
            return []
        with self.out.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def _append(self, row: dict[str, Any]) -> None:
        new = not self.out.exists()
        with self.out.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if new:
                writer.writeheader()
            writer.writerow({name: row[name] for name in COLUMNS})


def _is_of(row: dict[str, str], run: Run, seed: int) -> bool:
    return (row["run"], row["seed"]) == (run.name, str(seed))


def read_grid(path: Path) -> Iterator[Run]:
    """The runs of a grid. What stands under ``defaults`` counts for each of them."""
    grid = yaml.safe_load(path.read_text(encoding="utf-8"))
    defaults = grid.get("defaults", {})
    for run in grid["runs"]:
        merged = {**defaults, **run}
        for part in ("reader", "training"):
            merged[part] = {**defaults.get(part, {}), **run.get(part, {})}
        yield Run(**merged)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path)
    parser.add_argument("--nq", type=Path, help="a folder with train.jsonl.gz and dev.jsonl.gz of Natural Questions")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "study.csv")
    parser.add_argument("--only", nargs="*", help="names of the runs to do")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    runs = [run for run in read_grid(options.grid) if options.only is None or run.name in options.only]
    names = dict.fromkeys(name for run in runs for name in (run.data, *run.tests))
    splits = {name: load_split(name, options.nq) for name in names}
    study = Study(options.out, splits)
    for run in runs:
        study.run(run)


if __name__ == "__main__":
    main()
