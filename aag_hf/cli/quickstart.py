"""``aag quickstart``: every stage of AAG at a small size, on facts about countries."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from aag_hf.awakening import AwakeningConfig, AwakeningModel, AwakeningPipeline
from aag_hf.awakening.loading import load_language_model, load_part, load_tokenizer
from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.boundary import run_command
from aag_hf.cli.compress import compress
from aag_hf.cli.dtypes import chosen_dtype
from aag_hf.cli.generate import GenerateOptions, generate
from aag_hf.cli.options import ModelOptions
from aag_hf.cli.output import plain_console
from aag_hf.cli.processes import device, use_threads
from aag_hf.cli.quickstart_settings import (
    CONTEXT_TOKENS,
    DOCUMENT_READER,
    EXAMPLE,
    MEMORY,
    MEMORY_BATCH,
    MEMORY_RATE,
    READERS,
    READING,
    SIZES,
    Reader,
)
from aag_hf.cli.retrieve import retrieve
from aag_hf.cli.stage import is_finished, new_directory
from aag_hf.cli.tiny import make_tiny_model
from aag_hf.cli.train import TrainOptions, train
from aag_hf.cli.train_generator import TrainGeneratorOptions, train_generator
from aag_hf.data.countries import country_documents, load_countries
from aag_hf.data.jsonl import write_rows
from aag_hf.data.made import made_countries
from aag_hf.data.records import read_records, write_records
from aag_hf.data.things import made_things
from aag_hf.evaluation.contexts import context_report
from aag_hf.evaluation.controls import Control
from aag_hf.evaluation.evaluator import evaluate_reader
from aag_hf.evaluation.report import plot_results, results_markdown, results_table, write_json
from aag_hf.trainers import ContextDistillationConfig, ContextGeneratorConfig

console = plain_console()


@dataclass
class QuickstartOptions:
    """Options of ``aag quickstart``."""

    output_dir: str = field(default="runs/quickstart", metadata={"help": "Where everything goes; reused if it fits."})
    seed: int = field(default=17, metadata={"help": "Of the data's split, initial weights and the order of batches."})
    threads: int | None = field(default=None, metadata={"help": "CPU threads; under load 1 can beat 2."})
    preset: Literal["standard", "smoke"] = field(
        default="standard", metadata={"help": "'standard': SmolLM2-135M; 'smoke': a tiny random model, in seconds."}
    )


class Quickstart:
    """The stages in their order, each reading what those before it wrote."""

    def __init__(self, options: QuickstartOptions):
        self.options = options
        self.size = SIZES[options.preset]
        self.dtype = chosen_dtype(self.size.dtype)
        self.directory = Path(options.output_dir)
        use_threads(options.threads)
        self.settings = {"preset": options.preset, "seed": options.seed, **asdict(self.size)}
        if not is_finished(self.directory / "started", self.settings):
            with new_directory(self.directory / "started", self.settings):
                pass
        if options.preset == "smoke":
            self.base = str(make_tiny_model(self.directory / "tiny_model", options.seed))
        else:
            self.base = "embedded"

    def run(self) -> list[dict[str, Any]]:
        """All stages; returns the table's rows."""
        self.prepare_data()
        self.find_and_compress()
        self.train_generator()
        self.generate_contexts()
        self.train_readers()
        self.train_memory()
        return self.evaluate()

    def prepare_data(self) -> None:
        self._say(1, "Data", "facts about countries as questions; a country is in one split only")
        splits = self._split()
        for split, records in splits.items():
            if not self._records("data", split).exists():
                write_records(records, self._records("data", split))
        documents = self.directory / "data" / "documents.jsonl"
        if not documents.exists():
            write_rows(country_documents(), documents)
        console.print("  " + ", ".join(f"{split} {len(records)}" for split, records in splits.items()))

    def find_and_compress(self) -> None:
        self._say(2, "Compression", "BM25 finds documents, and of these LongLLMLingua keeps the best for the question")
        for split in ("generator", "dev"):
            retrieve(
                self._records("data", split),
                [self.directory / "data" / "documents.jsonl"],
                self._records("retrieved", split),
                top_k=2,
            )
            _, report = compress(
                self._records("retrieved", split),
                self._records("compressed", split),
                self.base,
                target_tokens=CONTEXT_TOKENS,
                dtype=self.dtype,
            )
            console.print(
                f"  {split}: {report['tokens_before']:.0f} tokens → {report['tokens_after']:.0f}; the answer is in "
                f"{report['answer_before']:.0%} before and {report['answer_after']:.0%} after",
            )

    def train_generator(self) -> None:
        self._say(3, "Context generator", "the model learns to write that compressed context from the question alone")
        train_generator(
            TrainGeneratorOptions(
                **self._model_options(),
                train_file=str(self._records("compressed", "generator")),
                dev_file=str(self._records("compressed", "dev")),
                context_max_length=CONTEXT_TOKENS,
                target_modules=["all-linear"],
            ),
            ContextGeneratorConfig(
                str(self.directory / "generator"),
                **self._training_options(self.size.generator_steps, 4e-3, "lora", "generated"),
            ),
        )

    def generate_contexts(self) -> None:
        self._say(4, "Generation", "it writes a context for every question about countries it was not trained on")
        for split in ("train", "dev", "test"):
            source = "compressed" if split == "dev" else "data"
            records = generate(
                GenerateOptions(
                    **self._model_options(),
                    generator=[str(self.directory / "generator")],
                    input=str(self._records(source, split)),
                    output=str(self._records("generated", split)),
                    context_max_length=CONTEXT_TOKENS,
                )
            )
            report = context_report(records)
            console.print(f"  {split}: the answer is in {report['answer_recall']:.0f} % of them")

    def train_readers(self) -> None:
        self._say(5, "Teacher", "a reader with the real document in front of it; it teaches the others")
        self._train_reader(DOCUMENT_READER, self.size.document_steps, "data", teacher=None)
        self._say(6, "Readers", "one adapter for all questions, or one made for each; without and with written context")
        for reader in READERS:
            steps = self.size.closed_book_steps if reader.context == "none" else self.size.context_steps
            self._train_reader(reader, steps, "generated", teacher=str(self.directory / DOCUMENT_READER.folder))

    def train_memory(self) -> None:
        self._say(7, "Document memory", "a hypernetwork learns to write a document into an adapter, in one pass")
        made = self._records("made", "train")
        if not made.exists():
            real = read_records(self._records("data", "train"))
            countries = made_countries(self.size.made_countries, self.options.seed)
            write_records([*real, *countries, *made_things(self.size.made_things, self.options.seed)], made)
        target = self.directory / MEMORY
        arguments = self._training_options(self.size.memory_steps, MEMORY_RATE, "aag", "none")
        train(
            TrainOptions(
                **self._model_options(),
                train_file=str(made),
                dev_file=str(self._records("data", "dev")),
                method="aag",
                adapter_from="document",
                keep_lower_states=True,
                chat=False,
            ),
            ContextDistillationConfig(str(target), **arguments | {"per_device_train_batch_size": MEMORY_BATCH}),
        )
        figures = AwakeningConfig.from_pretrained(target).training_figures
        console.print(f"  HyperLoRA from the document: development loss {figures['eval_loss']:.2f}")

    def evaluate(self) -> list[dict[str, Any]]:
        self._say(8, "Evaluation", "exact match on countries never trained on, with controls")
        records = read_records(self._records("generated", "test"))
        base = load_language_model(self.base, **ModelOptions(**self._model_options()).loading_arguments()).to(device())
        rows = [self._measure("base model, closed book", self._base_reader(base), records)]
        closed_book, from_question, with_context = READERS
        for reader in (closed_book, from_question):
            model = AwakeningModel.from_pretrained(self.directory / reader.folder, base_model=base)
            rows.append(self._measure(reader.name, model, records))
        rows.append(self._measure("  … features shuffled", model, records, "shuffled"))
        memory = AwakeningModel.from_pretrained(self.directory / MEMORY, base_model=base)
        rows.append(self._measure("HyperLoRA from the document", memory, records))
        rows.append(self._measure("  … from another document", memory, records, "another_document"))
        memory.config.adapter_context = "generated"
        rows.append(self._measure("  … from the generated context", memory, records))
        for reader in (with_context, DOCUMENT_READER):
            model = AwakeningModel.from_pretrained(self.directory / reader.folder, base_model=base)
            rows.append(self._measure(reader.name, model, records))
        write_json(rows, self.directory / "results.json")
        title = f"{len(records)} questions about {len({r['entity'] for r in records})} unseen countries"
        plot_results(rows, self.directory / "results.png", title)
        (self.directory / "results.md").write_text(results_markdown(rows) + "\n", encoding="utf-8")
        console.print(results_table(rows, title), soft_wrap=False)
        console.print(*READING, sep="\n\n", soft_wrap=False)
        self._compose(memory, base)
        return rows

    def _compose(self, memory: AwakeningModel, base: Any) -> None:
        """Save the reader of documents with the generator: asked without a document, it remembers one of its own."""
        target = self.directory / "model"
        if not is_finished(target, self.settings):
            memory.generator = load_part(self.directory / "generator", base)
            memory.config.context_max_length = CONTEXT_TOKENS
            with new_directory(target, self.settings) as directory:
                memory.save_pretrained(directory)
        ask = AwakeningPipeline(AwakeningModel.from_pretrained(target, base_model=base))
        ask.read(EXAMPLE)
        question = "What is the capital of Nuvaria?"
        console.print(f"\n{EXAMPLE}\n{question} {ask(question)['answer']}", soft_wrap=True)
        console.print(f'Ask your own: aag ask --model {target} --document "{EXAMPLE}" --question "{question}"')

    def _base_reader(self, base: Any) -> AwakeningModel:
        config = AwakeningConfig(base_model_name_or_path=self.base)
        return AwakeningModel(config, base, load_tokenizer(self.base))

    def _measure(
        self, name: str, model: AwakeningModel, records: list[dict[str, Any]], control: Control = "none"
    ) -> dict[str, Any]:
        result = evaluate_reader(model, records, control=control, batch_size=64, seed=self.options.seed)
        console.print(f"  {name.strip()}: EM {result['exact_match']:.1f} %")
        return {"name": name, "trained_parameters": getattr(model.config, "trained_parameters", None)} | result

    def _train_reader(self, reader: Reader, steps: int, data: str, teacher: str | None) -> None:
        target = self.directory / reader.folder
        options = TrainOptions(
            **self._model_options(),
            train_file=str(self._records(data, "train")),
            dev_file=str(self._records(data, "dev")),
            method=reader.method,
            context=reader.context,
            chat=False,
            teacher=teacher,
            teacher_cache_dir=str(self.directory / "teacher_cache") if teacher else None,
            r=8 if reader.method == "aag" else self.size.static_rank,
            lora_alpha=16 if reader.method == "aag" else 2 * self.size.static_rank,
            feature_dim=self.size.feature_dim,
            target_modules=["all-linear"],
        )
        train(
            options,
            ContextDistillationConfig(
                str(target),
                alpha=0.5,
                temperature=1.0,
                **self._training_options(steps, reader.learning_rate, reader.method, reader.context),
            ),
        )
        figures = AwakeningConfig.from_pretrained(target).training_figures
        console.print(f"  {reader.name}: development loss {figures['eval_loss']:.2f}")

    def _model_options(self) -> dict[str, Any]:
        return {
            "model_name_or_path": self.base,
            "dtype": self.dtype,
            # On CPUs without AMX, torch's fused attention is slow in bfloat16.
            "attn_implementation": "eager" if self.dtype == "bfloat16" else None,
            "threads": self.options.threads,
        }

    def _training_options(self, steps: int, learning_rate: float, method: str, context: str) -> dict[str, Any]:
        # Without a context the length of a row tells its relation: batches of one relation alone would teach less.
        grouped = {} if context == "none" else {"train_sampling_strategy": "group_by_length"}
        return {
            **grouped,
            "max_steps": steps,
            "use_cpu": device().type == "cpu",
            # A plain LoRA keeps its weights in float32; HyperLoRA's matrices have the base model's type already.
            "bf16": method == "lora" and self.dtype == "bfloat16",
            "per_device_train_batch_size": self.size.batch,
            "per_device_eval_batch_size": 2 * self.size.batch,
            "learning_rate": learning_rate,
            "warmup_steps": 0.08,
            "lr_scheduler_type": "linear",
            "max_grad_norm": 1.0,
            "logging_steps": max(1, steps // 4),
            "save_strategy": "no",
            "report_to": [],
            "seed": self.options.seed,
            "prediction_loss_only": True,
            "dataloader_pin_memory": False,
        }

    def _split(self) -> dict[str, list[dict[str, Any]]]:
        """The records of each split; a country is in one only."""
        loaded = load_countries(self.options.seed)
        countries = {split: list(dict.fromkeys(r["entity"] for r in records)) for split, records in loaded.items()}
        own = self.size.countries["generator"]
        chosen = {
            "generator": countries["train"][:own],
            "train": countries["train"][own : own + self.size.countries["train"]],
            "dev": countries["dev"][: self.size.countries["dev"]],
            "test": countries["test"][: self.size.countries["test"]],
        }
        records = [record for split in loaded.values() for record in split]
        return {split: [r for r in records if r["entity"] in names] for split, names in chosen.items()}

    def _records(self, folder: str, split: str) -> Path:
        return self.directory / folder / f"{split}.jsonl.gz"

    def _say(self, number: int, stage: str, meaning: str) -> None:
        console.print(f"\n{number}. {stage}: {meaning}.", style="bold")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    (options,) = parse_arguments("quickstart", (QuickstartOptions,), argv)
    Quickstart(options).run()


if __name__ == "__main__":
    sys.exit(run_command("quickstart", lambda: main(sys.argv[1:])))
