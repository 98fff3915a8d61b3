"""``aag index``: indexes a pool of passages once, for any number of searches."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.boundary import run_command
from aag_hf.cli.output import plain_console
from aag_hf.cli.stage import OVERWRITE, claimed, manifest, new_directory, refuse_processes
from aag_hf.contents import INDEX
from aag_hf.data.pool import Passage, iter_pool
from aag_hf.data.reporting import Reporting
from aag_hf.data.retrieval import PassageIndex

POOL = "Passages: files, folders or data sets of the Hub that hold rows with title and text, or records with ctxs."


@dataclass
class IndexOptions:
    """Options of ``aag index``."""

    pool: list[str] = field(metadata={"help": POOL})
    output: str = field(metadata={"help": "Folder to write, for `aag retrieve --index`."})
    skip_bad: int = field(default=0, metadata={"help": "How many bad rows may be left out; one more is an error."})
    overwrite: bool = field(default=False, metadata={"help": OVERWRITE})


def index(pool: Sequence[str | Path], output: str | Path, skip_bad: int = 0, overwrite: bool = False) -> PassageIndex:
    """Index the passages of `pool` in the folder `output`, which appears when it is complete.

    Raises:
        InputError: A source cannot be read, the pool is empty, or `output` was made from other sources.
    """
    refuse_processes("index")
    made_by = manifest(INDEX, {"skip_bad": skip_bad}, pool=pool)
    output = Path(output)
    with claimed(output, made_by, overwrite) as finished:
        if not finished:
            with new_directory(output, made_by) as directory:
                PassageIndex.build(_counted(iter_pool(pool, skip_bad)), directory)
    return PassageIndex.open(output)


def _counted(passages: Iterator[Passage]) -> Iterator[Passage]:
    with Reporting("Indexing") as reporting:
        for number, passage in enumerate(passages):
            if number % 1000 == 0:
                reporting.reach(number)
            yield passage


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    (options,) = parse_arguments("index", (IndexOptions,), argv)
    passages = len(index(**vars(options)))
    plain_console().print(f"{options.output}: {passages:,} passages; search them with aag retrieve --index")


if __name__ == "__main__":
    sys.exit(run_command("index", lambda: main(sys.argv[1:])))
