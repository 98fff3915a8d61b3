"""``aag generate``: writes a context for each question from memory."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import AutoTokenizer

from aag_hf.awakening.decoding import generate_texts
from aag_hf.awakening.model import is_encoder_decoder, load_language_model, load_part
from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.options import ModelOptions, device, refuse_processes, use_threads
from aag_hf.collators import DataCollatorForContextGeneration
from aag_hf.data.contexts import GENERATOR_PROMPT
from aag_hf.data.folds import fold_of
from aag_hf.data.progress import resume_map
from aag_hf.data.records import read_records
from aag_hf.errors import InputError
from aag_hf.evaluation.contexts import context_report
from aag_hf.hub import leave_data_card

Records = list[dict[str, Any]]


@dataclass
class GenerateOptions(ModelOptions):
    """Options of ``aag generate``."""

    generator: list[str] = field(
        default_factory=list,
        metadata={"help": "Generator trained before; several for cross-fitting: the n-th has not seen fold n."},
    )
    input: str = field(default="", metadata={"help": "Records to write contexts for."})
    output: str = field(default="", metadata={"help": "File to write (.jsonl or .jsonl.gz); a stopped run continues."})
    prompt: str = field(default=GENERATOR_PROMPT, metadata={"help": "The prompt the generator was trained with."})
    context_max_length: int = field(default=128, metadata={"help": "Most tokens of a context."})
    batch_size: int = field(default=64, metadata={"help": "Questions a forward pass."})


def generate(options: GenerateOptions) -> Records:
    """Write the records of `input` with `generated_context` to `output`; a stopped run continues.

    Raises:
        InputError: An option is missing or cannot be used, `output` was made with others, or several processes.
    """
    for name in ("generator", "input", "output"):
        if not getattr(options, name):
            raise InputError(f"{name} is missing.")
    refuse_processes("generate")
    use_threads(options.threads)
    records = read_records(options.input)
    loading = options.loading_arguments()
    base = load_language_model(options.model_name_or_path, **loading)
    models = [load_part(Path(path), base, merge=True, **loading).to(device()) for path in options.generator]
    tokenizer = AutoTokenizer.from_pretrained(options.generator[0])
    collator = DataCollatorForContextGeneration(tokenizer, is_encoder_decoder(models[0]), options.prompt)

    def write_contexts(batch: Records) -> Records:
        contexts: dict[str, str] = {}
        for fold, model in enumerate(models):
            members = [record for record in batch if fold_of(record, len(models)) == fold]
            texts, _ = generate_texts(
                model, collator, members, max_new_tokens=options.context_max_length, batch_size=options.batch_size
            )
            contexts.update(zip((record["id"] for record in members), texts))
        return [record | {"generated_context": contexts[record["id"]]} for record in batch]

    settings = {"generator": options.generator, "prompt": options.prompt, "length": options.context_max_length}
    results = resume_map(
        sorted(records, key=lambda record: len(record["question"])),
        write_contexts,
        options.output,
        settings=settings,
        batch_size=options.batch_size,
        description="Generating",
    )
    leave_data_card(options.output, results, "aag generate", {"input": options.input} | settings)
    return results


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    (options,) = parse_arguments("generate", (GenerateOptions,), argv)
    report = context_report(generate(options))
    figures = f"{report['count']:.0f} contexts, answer in {report['answer_recall']:.1f} %"
    if "rouge_l" in report:
        figures += f", ROUGE-L {report['rouge_l']:.1f}"
    Console().print(f"{figures}; written to {options.output}", highlight=False)


if __name__ == "__main__":
    main(sys.argv[1:])
