"""``aag retrieve``: finds passages for each question with BM25."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.boundary import run_command
from aag_hf.cli.index import POOL
from aag_hf.cli.output import plain_console
from aag_hf.cli.processes import claimed_by_first, is_main_process, processes
from aag_hf.cli.stage import OVERWRITE, called, manifest
from aag_hf.data.answers import Match, check_patterns
from aag_hf.data.mapped import open_records
from aag_hf.data.pool import iter_pool
from aag_hf.data.records import iter_records
from aag_hf.data.retrieval import Bm25Retriever, PassageIndex, recall_at
from aag_hf.data.shards import map_records
from aag_hf.errors import InputError

# The finished part is saved after this many questions.
_BATCH = 256


@dataclass
class RetrieveOptions:
    """Options of ``aag retrieve``."""

    input: str = field(metadata={"help": "Records: a file, a folder, or the id of a data set on the Hub."})
    output: str = field(metadata={"help": "File to write (.jsonl, .jsonl.gz, .parquet): the records with new ctxs."})
    pool: list[str] = field(default_factory=list, metadata={"help": f"{POOL} It is indexed anew, in memory."})
    index: str | None = field(default=None, metadata={"help": "Folder that `aag index` made, instead of a pool."})
    split: str | None = field(default=None, metadata={"help": "Which split of the input."})
    top_k: int = field(
        default=5, metadata={"help": "Passages per question. Those that share no word with it have score 0."}
    )
    match: Match = field(
        default="words",
        metadata={"help": "How passages are searched for answers: by words, or by regex if answers are expressions."},
    )
    skip_bad: int = field(
        default=0, metadata={"help": "How many bad rows of the pool may be left out; one more is an error."}
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
    index: str | Path | None = None,
    match: Match = "words",
) -> dict[str, Any]:
    """Give each record of `input` its `top_k` best passages as `ctxs`, and write the records to `output`.

    Several processes share the questions. Passages that share no word with a question have score 0.

    Args:
        input: Records.
        pool: Sources of the passages; empty if there is an index.
        output: The file to write; a stopped run continues.
        split: Which split of the input.
        top_k: Passages per question.
        skip_bad: How many malformed rows of the pool may be left out.
        overwrite: Replace an output.
        index: A folder that ``aag index`` made.
        match: How answers are looked for in passages, as in [`~aag_hf.data.answers.has_answer`].

    Returns:
        On the first process, how many `questions` there are, and `recall`, as [`~aag_hf.data.retrieval.recall_at`]
        gives it for the first passage and for all.

    Raises:
        InputError: An input cannot be read, the pool is empty, or `output` was made from other inputs.
    """
    if bool(pool) == (index is not None):
        raise InputError("give either pool, what to search, or index, a folder that `aag index` made.")
    records = open_records(input, split, need_answers=False)
    if match == "regex":
        for record in records:
            check_patterns(record.get("answers") or (), f"{input}, record {record['id']}")
    settings = {"split": split, "top_k": top_k, "skip_bad": skip_bad, "match": match} | called(records)
    made_by = manifest("retrieve", settings, input=input, pool=pool, index=index)
    output = Path(output)
    with claimed_by_first(output, made_by, overwrite) as finished:
        if not finished:
            passages = PassageIndex.open(Path(index)) if index else Bm25Retriever(iter_pool(pool, skip_bad))

            def search(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
                questions = [record["question"] for record in batch]
                found = passages.search(questions, top_k, [record.get("answers") for record in batch], match)
                return [record | {"ctxs": ctxs} for record, ctxs in zip(batch, found, strict=True)]

            map_records(
                records,
                search,
                output,
                made_by,
                batch_size=_BATCH,
                description="Searching",
                processes=processes(),
            )
        if not is_main_process():
            return {}
        recall = recall_at(iter_records(output, need_answers=False), sorted({1, top_k}))
    return {"questions": len(records), "recall": recall}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    (options,) = parse_arguments("retrieve", (RetrieveOptions,), argv)
    result = retrieve(**vars(options))
    if result:
        recalls = ", ".join(f"recall@{k} {share:.1%}" for k, share in result["recall"].items())
        plain_console().print(
            f"{result['questions']} questions: {recalls or 'no answers to look for'}; written to {options.output}",
        )


if __name__ == "__main__":
    sys.exit(run_command("retrieve", lambda: main(sys.argv[1:])))
