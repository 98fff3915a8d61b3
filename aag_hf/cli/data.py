"""``aag data``: turns a data set into records, or writes the countries data set."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub.constants import REPOCARD_NAME

from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.boundary import run_command
from aag_hf.cli.output import plain_console
from aag_hf.cli.stage import OVERWRITE, claimed, manifest
from aag_hf.data.check import describe_source
from aag_hf.data.files import read_rows
from aag_hf.data.progress import write_output
from aag_hf.data.records import iter_records
from aag_hf.errors import InputError
from aag_hf.hub import data_card, write_card
from aag_hf.hub.data_cards import Contents
from aag_hf.manifest import MANIFEST, Manifest

# In a card, until the folder is published under a name.
NAMELESS = "owner/name"


@dataclass
class DataOptions:
    """Options of ``aag data``."""

    source: str = field(
        default="", metadata={"help": "countries, a file, a folder, or the id of a data set on the Hub."}
    )
    output: str = field(
        default="",
        metadata={"help": "The file to write (.jsonl, .jsonl.gz, .parquet); for countries, the folder of the splits."},
    )
    check: str | None = field(
        default=None, metadata={"help": "Only print what is in this file, folder or data set of records or passages."}
    )
    split: str | None = field(default=None, metadata={"help": "Which split of a folder or a data set on the Hub."})
    config_name: str | None = field(default=None, metadata={"help": "Which configuration of a data set on the Hub."})
    revision: str | None = field(default=None, metadata={"help": "Which branch, tag or commit of it."})
    seed: int = field(default=29, metadata={"help": "Seed of the splits and wordings of countries."})
    skip_bad: int = field(default=0, metadata={"help": "How many bad rows may be left out; one more is an error."})
    overwrite: bool = field(default=False, metadata={"help": OVERWRITE})


def write_data(
    source: str,
    output: str | Path,
    split: str | None = None,
    seed: int = 29,
    skip_bad: int = 0,
    overwrite: bool = False,
    config_name: str | None = None,
    revision: str | None = None,
) -> dict[str, int]:
    """Write `source` as records, with a data set card if their folder holds nothing else.

    Args:
        source: ``"countries"``, or what `read_records` reads.
        output: The file to write. For countries it is a folder, which gets a file per split and ``documents.jsonl``.
        split: Which split of the source to write. Of countries, all are written.
        seed: Seed of the splits and wordings of countries.
        skip_bad: How many rows that break the contract may be left out.
        overwrite: Replace an output that was made from something else.
        config_name: Which configuration of a data set on the Hub.
        revision: Which branch, tag or commit of it.

    Returns:
        The number of rows of each written file, by path.

    Raises:
        InputError: The source cannot be read, the output's name has a wrong ending, or the output was made from
            something else.
    """
    if source != "countries":
        chosen = {"split": split, "skip_bad": skip_bad, "config_name": config_name, "revision": revision}
        settings = {name: value for name, value in chosen.items() if value}
        made_by = manifest("data", settings, source=source)
        records = iter_records(
            source, split, need_answers=False, skip_bad=skip_bad, config_name=config_name, revision=revision
        )
        return _write_files({Path(output): records}, made_by, overwrite)
    from aag_hf.data.countries import country_documents, load_countries

    made_by = manifest("data", {"source": source, "seed": seed})
    files = {Path(output) / f"{name}.jsonl.gz": records for name, records in load_countries(seed).items()}
    files[Path(output) / "documents.jsonl"] = country_documents()
    return _write_files(files, made_by, overwrite)


def _write_files(files: Mapping[Path, Iterable[dict[str, Any]]], made_by: Manifest, overwrite: bool) -> dict[str, int]:
    """Write files of one folder and its card, and return the number of rows of each, by path."""
    contents = {path: _write_once(path, rows, made_by, overwrite) for path, rows in files.items()}
    _leave_card(next(iter(files)).parent, {path.name: found for path, found in contents.items()})
    return {str(path): found.rows for path, found in contents.items()}


def _write_once(path: Path, rows: Iterable[dict[str, Any]], made_by: Manifest, overwrite: bool) -> Contents:
    """Write `rows` unless they are there, one at a time, and return what they are."""
    contents = Contents()
    with claimed(path, made_by, overwrite) as finished:
        if finished:
            for _ in contents.counting(row for _, row in read_rows(path)):
                pass
        else:
            write_output(contents.counting(rows), path, made_by)
    return contents


def _leave_card(folder: Path, known: Mapping[str, Contents]) -> None:
    """Write the card of a folder in which each file was written by a command of ours."""
    files = [path for path in folder.iterdir() if not path.name.startswith(".") and path.name != REPOCARD_NAME]
    data = [path for path in files if not path.name.endswith(MANIFEST)]
    if all(path.with_name(f"{path.name}.{MANIFEST}").is_file() for path in data):
        # Two files may have one name for a split: the card is optional here, and `aag publish` says so.
        with suppress(InputError):
            write_card(data_card(folder, NAMELESS, known), folder)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    (options,) = parse_arguments("data", (DataOptions,), argv)
    if options.check is not None:
        for line in describe_source(options.check, options.split, options.config_name, options.revision):
            plain_console().print(line)
        return
    for name in ("source", "output"):
        if not getattr(options, name):
            raise InputError(f"{name} is missing.")
    chosen = {name: value for name, value in vars(options).items() if name != "check"}
    for path, rows in write_data(**chosen).items():
        plain_console().print(f"{rows:6d} rows in {path}")


if __name__ == "__main__":
    sys.exit(run_command("data", lambda: main(sys.argv[1:])))
