"""``aag retrieve``: finds passages for each question with BM25."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.boundary import run_command
from aag_hf.cli.options import OVERWRITE
from aag_hf.cli.output import plain_console
from aag_hf.cli.stage import claimed, manifest
from aag_hf.data.progress import resume_map
from aag_hf.data.records import read_records
from aag_hf.data.retrieval import Bm25Retriever, read_pool, recall_at
from aag_hf.hub import leave_data_card


@dataclass
class RetrieveOptions:
    """Options of ``aag retrieve``."""

    input: str = field(metadata={"help": "Records: a file, a folder, or the id of a data set on the Hub."})
    pool: list[str] = field(metadata={"help": "Files to search: rows with title and text, or records with ctxs."})
    output: str = field(metadata={"help": "File to write (.jsonl or .jsonl.gz): the records with new ctxs."})
    split: str | None = field(default=None, metadata={"help": "Which split of the input."})
    top_k: int = field(default=5, metadata={"help": "Passages for each question."})
    skip_bad: int = field(
        default=0, metadata={"help": "How many rows of the pool that cannot be used may be left out."}
    )
    overwrite: bool = field(default=False, metadata={"help": OVERWRITE})


def retrieve(
    input: str | Path,
    pool: Sequence[str | Path],
    output: str | Path,
    split: str | None = None,
    top_k: int = 5,
    skip_bad: int = 0,
    overwrite: bool = False,
) -> list[dict[str, Any]]:
    """Give each record of `input` its `top_k` best passages of the pool as `ctxs`, and write the records to `output`.

    Raises:
        InputError: An input cannot be read, the pool is empty, `top_k` is below one, or `output` was made from others.
    """
    records = read_records(input, split, need_answers=False)
    made_by = manifest("retrieve", {"split": split, "top_k": top_k, "skip_bad": skip_bad}, input=input, pool=pool)
    output = Path(output)
    with claimed(output, made_by, overwrite) as finished:
        if finished:
            records = read_records(output, need_answers=False)
        else:
            retriever = Bm25Retriever(read_pool(pool, skip_bad))

            def search(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
                questions = [record["question"] for record in batch]
                found = retriever.search(questions, top_k, [record.get("answers") for record in batch])
                return [record | {"ctxs": ctxs} for record, ctxs in zip(batch, found, strict=True)]

            records = resume_map(records, search, output, made_by, batch_size=1024, description="Searching")
        settings = {"input": str(input), "pool": list(map(str, pool)), "top_k": top_k}
        leave_data_card(output, records, "aag retrieve", settings)
    return records


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    (options,) = parse_arguments("retrieve", (RetrieveOptions,), argv)
    records = retrieve(**vars(options))
    depths = sorted({1, options.top_k})
    shares = {k: recall_at(records, k) for k in depths}
    recalls = ", ".join(f"recall@{k} {share:.1%}" for k, share in shares.items() if share is not None)
    plain_console().print(
        f"{len(records)} questions: {recalls or 'no answers to look for'}; written to {options.output}",
    )


if __name__ == "__main__":
    sys.exit(run_command("retrieve", lambda: main(sys.argv[1:])))
