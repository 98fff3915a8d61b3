"""``aag data``: turns a data set into records, or writes the countries data set."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from aag_hf.cli.arguments import parse_arguments
from aag_hf.data.jsonl import write_rows
from aag_hf.data.records import read_records, write_records
from aag_hf.hub import leave_data_card


@dataclass
class DataOptions:
    """Options of ``aag data``."""

    source: str = field(metadata={"help": "countries, a file, a folder, or the id of a data set on the Hub."})
    output: str = field(
        metadata={"help": "Folder for the splits of countries; else the file to write (.jsonl or .jsonl.gz)."}
    )
    split: str | None = field(default=None, metadata={"help": "Which split of a folder or a data set on the Hub."})
    seed: int = field(default=29, metadata={"help": "Decides the splits and the wordings of countries."})


def write_data(source: str, output: str | Path, split: str | None = None, seed: int = 29) -> dict[str, int]:
    """Write `source` as records, with a data set card.

    Args:
        source: ``"countries"``, or what `read_records` reads.
        output: For countries a folder, which gets a file for each split and ``documents.jsonl``; else one file.
        split: Which split of the source; not for countries, which are written whole.
        seed: Of the countries.

    Returns:
        How many rows each written file has, by path.

    Raises:
        InputError: The source cannot be read or the output cannot bear that name.
    """
    if source != "countries":
        records = read_records(source, split)
        write_records(records, output)
        leave_data_card(output, records, "aag data", {"source": source} | ({"split": split} if split else {}))
        return {str(output): len(records)}
    from aag_hf.data.countries import country_documents, load_countries

    written = {}
    settings = {"source": source, "seed": seed}
    for name, records in load_countries(seed).items():
        path = Path(output) / f"{name}.jsonl.gz"
        write_records(records, path)
        leave_data_card(path, records, "aag data", settings)
        written[str(path)] = len(records)
    path, documents = Path(output) / "documents.jsonl", country_documents()
    write_rows(documents, path)
    leave_data_card(path, documents, "aag data", settings)
    return {**written, str(path): len(documents)}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    (options,) = parse_arguments("data", (DataOptions,), argv)
    for path, rows in write_data(options.source, options.output, options.split, options.seed).items():
        Console().print(f"[bold]{rows:6d}[/bold] rows in {path}", highlight=False)


if __name__ == "__main__":
    main(sys.argv[1:])
