"""``aag generate``: writes a context for each question from memory."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from torch.utils.data import Subset
from transformers import PreTrainedModel

from aag_hf.awakening.decoding import generate_texts
from aag_hf.awakening.drafts import DrawingOptions, draw_texts, without_duplicates
from aag_hf.awakening.loading import is_encoder_decoder, load_language_model, load_part, load_tokenizer
from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.boundary import run_command
from aag_hf.cli.options import ModelOptions
from aag_hf.cli.output import plain_console
from aag_hf.cli.processes import claimed_by_first, device, is_main_process, processes, use_threads
from aag_hf.cli.stage import OVERWRITE, called, manifest
from aag_hf.collators import DataCollatorForContextGeneration
from aag_hf.data.contexts import GENERATOR_PROMPT
from aag_hf.data.folds import fold_of
from aag_hf.data.mapped import open_records
from aag_hf.data.shards import map_records
from aag_hf.errors import InputError
from aag_hf.evaluation.contexts import context_report
from aag_hf.manifest import MANIFEST, Manifest

Records = Sequence[dict[str, Any]]
DRAFTS = "generated_contexts"


@dataclass
class GenerateOptions(DrawingOptions, ModelOptions):
    """Options of ``aag generate``."""

    generator: list[str] = field(
        default_factory=list,
        metadata={"help": "A trained generator. For cross-fitting several; the n-th has not seen fold n."},
    )
    input: str = field(default="", metadata={"help": "Records to write contexts for."})
    output: str = field(
        default="", metadata={"help": "File to write (.jsonl, .jsonl.gz, .parquet); a stopped run continues."}
    )
    prompt: str = field(default=GENERATOR_PROMPT, metadata={"help": "The prompt that the generator was trained with."})
    context_max_length: int = field(default=128, metadata={"help": "The most tokens of a context."})
    batch_size: int = field(default=64, metadata={"help": "Contexts per forward pass."})
    overwrite: bool = field(default=False, metadata={"help": OVERWRITE})


def generate(options: GenerateOptions) -> Records:
    """Write the records of `input` with `generated_context` to `output`; a stopped run continues.

    If there are to be several contexts, they are `generated_contexts`, and `generated_context` is the first of them.

    Several processes share the records.

    Raises:
        InputError: An option is missing or cannot be used, or `output` was made with other options.
    """
    for name in ("generator", "input", "output"):
        if not getattr(options, name):
            raise InputError(f"{name} is missing.")
    use_threads(options.threads)
    check_folds(options.generator)
    tell_precision(options)
    records = open_records(options.input)
    settings = {name: getattr(options, name) for name in ("prompt", "context_max_length", "batch_size")}
    settings |= options.loading_settings() | called(records)
    if options.num_contexts > 1:
        settings |= {drawing.name: getattr(options, drawing.name) for drawing in fields(DrawingOptions)}
    made_by = manifest(
        "generate",
        settings,
        input=options.input,
        model_name_or_path=options.model_name_or_path,
        generator=options.generator,
    )
    output = Path(options.output)
    with claimed_by_first(output, made_by, options.overwrite) as finished:
        if not finished:
            _write_contexts(options, records, made_by)
    return open_records(output)


def _write_contexts(options: GenerateOptions, records: Records, made_by: Manifest) -> None:
    loading = options.loading_arguments()
    base = load_language_model(options.model_name_or_path, **loading)
    # Merged into weights of few bits, an adapter would be rounded to them.
    merge = options.quantization is None
    models = [load_part(Path(path), base, merge=merge, **loading).to(device()) for path in options.generator]
    tokenizer = load_tokenizer(options.generator[0])
    collator = DataCollatorForContextGeneration(tokenizer, is_encoder_decoder(models[0]), options.prompt)

    def write_contexts(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        contexts: dict[str, dict[str, Any]] = {}
        for fold, model in enumerate(models):
            members = [record for record in batch if fold_of(record, len(models)) == fold]
            written = _contexts(options, model, collator, members)
            contexts.update(zip((record["id"] for record in members), written))
        return [
            {name: value for name, value in record.items() if name != DRAFTS} | contexts[record["id"]]
            for record in batch
        ]

    lengths = [len(record["question"]) for record in records]
    map_records(
        Subset(records, sorted(range(len(records)), key=lengths.__getitem__)),
        write_contexts,
        Path(options.output),
        made_by,
        batch_size=options.batch_size,
        description="Generating",
        processes=processes(),
    )


def _contexts(
    options: GenerateOptions, model: PreTrainedModel, collator: DataCollatorForContextGeneration, records: Records
) -> list[dict[str, Any]]:
    """The fields that each record gets."""
    limits = {"max_new_tokens": options.context_max_length, "batch_size": options.batch_size}
    if options.num_contexts == 1:
        return [{"generated_context": text} for text in generate_texts(model, collator, records, **limits).texts]
    drawn = map(without_duplicates, draw_texts(model, collator, records, options.num_contexts, options, **limits))
    return [{"generated_context": each[0].text, DRAFTS: [draft._asdict() for draft in each]} for each in drawn]


def check_folds(generators: Sequence[str]) -> None:
    """Refuse generators that were trained on the records to write for, as far as their manifests tell.

    Args:
        generators: Their folders. If there are several, the n-th writes for fold n.

    Raises:
        InputError: A generator was trained without another fold, or with another number of folds.
    """
    for number, path in enumerate(generators):
        made_by = Path(path) / MANIFEST
        settings = Manifest.read(made_by).settings if made_by.is_file() else {}
        fold, folds = settings.get("fold"), settings.get("folds")
        if folds is None:
            if len(generators) > 1:
                print(f"{path}: nothing tells which fold it has not seen; taken for {number}.", file=sys.stderr)
        elif len(generators) == 1 and folds > 1:
            print(
                f"{path}: was trained without fold {fold} of {folds} only, and has seen the other records of its "
                f"training file: for contexts to train on, name all {folds} generators.",
                file=sys.stderr,
            )
        elif len(generators) > 1 and (fold, folds) != (number, len(generators)):
            raise InputError(
                f"generator {path}: was trained without fold {fold} of {folds}, and stands where the one without fold "
                f"{number} of {len(generators)} belongs: name the generators of all folds, in their order."
            )


def tell_precision(options: GenerateOptions) -> None:
    """Say so if a generator was trained over a base of another precision than it is loaded over."""
    for path in options.generator:
        made_by = Path(path) / MANIFEST
        trained = Manifest.read(made_by).settings.get("quantization") if made_by.is_file() else options.quantization
        if trained != options.quantization:
            bits = [text or "full precision" for text in (trained, options.quantization)]
            print(f"{path}: trained over a base in {bits[0]}, loaded over one in {bits[1]}.", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    (options,) = parse_arguments("generate", (GenerateOptions,), argv)
    records = generate(options)
    if not is_main_process():
        return
    report = context_report(records)
    figures = f"{report['count']:.0f} contexts, answer in {report['answer_recall']:.1f} %"
    if "answer_recall_any" in report:
        figures += f", in one of at most {options.num_contexts} in {report['answer_recall_any']:.1f} %"
    if "rouge_l" in report:
        figures += f", ROUGE-L {report['rouge_l']:.1f}"
    plain_console().print(f"{figures}; written to {options.output}")


if __name__ == "__main__":
    sys.exit(run_command("generate", lambda: main(sys.argv[1:])))
