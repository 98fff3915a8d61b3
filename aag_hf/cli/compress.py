"""``aag compress``: compresses each question's passages with LongLLMLingua."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.boundary import run_command
from aag_hf.cli.dtypes import DTYPES, chosen_dtype
from aag_hf.cli.output import plain_console
from aag_hf.cli.processes import claimed_by_first, device, is_main_process, processes
from aag_hf.cli.stage import OVERWRITE, called, manifest
from aag_hf.data.mapped import open_records
from aag_hf.data.records import iter_records
from aag_hf.data.shards import map_records
from aag_hf.errors import loading


@dataclass
class CompressOptions:
    """Options of ``aag compress``."""

    input: str = field(metadata={"help": "Records with ctxs: a file, a folder, or the id of a data set on the Hub."})
    output: str = field(metadata={"help": "File to write (.jsonl, .jsonl.gz, .parquet); a stopped run continues."})
    model_name_or_path: str = field(
        default="embedded", metadata={"help": "Causal language model that judges the passages; embedded: SmolLM2-135M."}
    )
    split: str | None = field(default=None, metadata={"help": "Which split of the input."})
    target_tokens: int = field(default=64, metadata={"help": "How long a context should be, in tokens of the model."})
    token_level: bool = field(
        default=False,
        metadata={"help": "Also drop tokens inside passages. This is for large models; small ones lose answers."},
    )
    sentences: bool = field(default=False, metadata={"help": "Keep single sentences instead of whole passages."})
    dtype: str = field(
        default="auto",
        metadata={"help": "The model's dtype: float32, bfloat16, float16, or 'auto': of the first two the faster one."},
    )
    threads: int | None = field(default=None, metadata={"help": "CPU threads; all cores if left out."})
    batch_size: int = field(default=64, metadata={"help": "Save the finished part after this many questions."})
    overwrite: bool = field(default=False, metadata={"help": OVERWRITE})


def compress(
    input: str | Path,
    output: str | Path,
    model_name_or_path: str = "embedded",
    split: str | None = None,
    target_tokens: int = 64,
    token_level: bool = False,
    sentences: bool = False,
    dtype: str = "auto",
    threads: int | None = None,
    batch_size: int = 64,
    overwrite: bool = False,
) -> tuple[Path, dict[str, float]]:
    """Write the records of `input` with `compressed_context` to `output`; a stopped run continues.

    Several processes share the records.

    Returns:
        The output and, on the first process, the figures of `compression_report`.

    Raises:
        InputError: An input or option cannot be used, or `output` was made with other ones.
    """
    dtype = chosen_dtype(dtype)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from aag_hf.data.compression import ContextCompressor, compression_report, passage_texts
    from aag_hf.data.embedded import resolve_model

    records = open_records(input, split)
    for record in records:
        passage_texts(record)
    if threads is not None:
        torch.set_num_threads(threads)
    settings = {"target_tokens": target_tokens, "token_level": token_level, "sentences": sentences, "dtype": dtype}
    settings |= {"batch_size": batch_size, "split": split} | called(records)
    made_by = manifest("compress", settings, input=input, model_name_or_path=model_name_or_path)
    output = Path(output)
    with claimed_by_first(output, made_by, overwrite) as finished:
        source = resolve_model(model_name_or_path)
        with loading(f"model_name_or_path {model_name_or_path}"):
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
            model = None
            if not finished:
                model = AutoModelForCausalLM.from_pretrained(source, dtype=DTYPES[dtype], trust_remote_code=False)
        if model is not None:
            compressor = ContextCompressor(model.to(device()), tokenizer, target_tokens, token_level, sentences)
            map_records(
                records,
                compressor.compress,
                output,
                made_by,
                batch_size=batch_size,
                description="Compressing",
                processes=processes(),
            )
    return output, compression_report(iter_records(output), tokenizer) if is_main_process() else {}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    (options,) = parse_arguments("compress", (CompressOptions,), argv)
    _, report = compress(**vars(options))
    if not is_main_process():
        return
    plain_console().print(
        f"{report['questions']:.0f} questions: {report['tokens_before']:.0f} tokens before, "
        f"{report['tokens_after']:.0f} after; answer in {report['answer_before']:.1%} before, "
        f"{report['answer_after']:.1%} after ({report['answer_survival']:.1%} survive); "
        f"written to {options.output}",
    )


if __name__ == "__main__":
    sys.exit(run_command("compress", lambda: main(sys.argv[1:])))
