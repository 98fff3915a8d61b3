"""``aag publish``: writes the card of a saved model or of data, or a Space. ``--push true`` uploads the folder."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub.constants import REPOCARD_NAME

from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.boundary import run_command
from aag_hf.cli.output import JSON_HELP, plain_console, print_json
from aag_hf.data.jsonl import write_whole
from aag_hf.errors import InputError
from aag_hf.evaluation.report import read_results, results_markdown
from aag_hf.hub import data_card, model_card, push_folder, write_card
from aag_hf.hub.cards import check_repository, read_json, replaceable_metadata
from aag_hf.hub.spaces import write_space

# The fields in which a saved model, adapter or question encoder names its base model.
BASES = (
    ("config.json", "base_model_name_or_path"),
    ("config.json", "backbone_name_or_path"),
    ("adapter_config.json", "base_model_name_or_path"),
)
# The same in the parts of a composed model.
BASES_OF_PARTS = (
    ("reader/adapter_config.json", "base_model_name_or_path"),
    ("generator/adapter_config.json", "base_model_name_or_path"),
    ("question_encoder/config.json", "backbone_name_or_path"),
    ("document_encoder/config.json", "backbone_name_or_path"),
)


@dataclass(kw_only=True)
class PublishOptions:
    """Options of ``aag publish``."""

    model: str | None = field(
        default=None,
        metadata={"help": "Folder of a saved model, adapter or question encoder; its README.md is written."},
    )
    data: str | None = field(
        default=None,
        metadata={"help": "Folder of records instead; its README.md is written too."},
    )
    space: str | None = field(
        default=None,
        metadata={"help": "Folder to write a Hub Space into, the page of `aag demo`; model is then a name on the Hub."},
    )
    repo_id: str = field(metadata={"help": "The name on the Hub, owner/name."})
    results: str | None = field(
        default=None, metadata={"help": "results.json of `aag evaluate`; its first row is the model's."}
    )
    dataset: str = field(default="", metadata={"help": "Name of the data set the results were measured on."})
    push: bool = field(default=False, metadata={"help": "Upload the folder. Without this nothing leaves the machine."})
    private: bool = field(default=False, metadata={"help": "With push: make the repository private."})
    json: bool = field(default=False, metadata={"help": JSON_HELP})

    def __post_init__(self) -> None:
        if (self.model is None) == (self.data is None):
            raise InputError("name either model, the folder of a saved model, or data, a folder of records.")
        if self.data is not None and self.results is not None:
            raise InputError("results are a model's: leave them out, or name model instead of data.")
        if self.space is not None and (self.model is None or self.results is not None):
            raise InputError("a space shows a model: name its model, and no data and results.")
        check_repository(self.repo_id)


def publish(options: PublishOptions) -> Path:
    """Write the card, unless somebody's own README.md is there; upload the folder only with `push`.

    Returns:
        The card.

    Raises:
        InputError: The folder holds nothing to publish, results cannot be read, or a base model that only this machine
            has.
        ValueError: The Hub finds the card's metadata invalid.
    """
    folder = Path(options.space or options.data or options.model or "")
    if options.space is not None:
        assert options.model is not None
        write_space(folder, options.model)
    elif options.data is None:
        _write_model_card(folder, options)
    elif replaceable_metadata(folder) is not None:
        write_card(data_card(folder, options.repo_id), folder)
    if options.push:
        repo_type = "space" if options.space is not None else "model" if options.data is None else "dataset"
        if repo_type == "model":
            _refer_to_base(folder)
        push_folder(
            folder,
            options.repo_id,
            repo_type=repo_type,
            replace_card=True,
            private=options.private,
        )
    return folder / REPOCARD_NAME


def _write_model_card(folder: Path, options: PublishOptions) -> None:
    rows: list[dict[str, Any]] = []
    if options.results is not None:
        if not Path(options.results).is_file() or not options.dataset:
            raise InputError(f"results {options.results!r} needs an existing file, and dataset the name of its data.")
        rows = read_results(Path(options.results))
    markdown = results_markdown(rows) if rows else ""
    card = model_card(folder, options.repo_id, rows=rows, results=markdown, dataset=options.dataset)
    _check_whole(folder)
    written = write_card(card, folder)
    if rows and not written:
        raise InputError(f"{folder / REPOCARD_NAME}: is your own and stays: remove it to have the results in a card.")


def _check_whole(folder: Path) -> None:
    """Refuse half a model, before its card calls it ready to load.

    Raises:
        InputError: A part has no weights, or a composed model lacks a part.
    """
    config = read_json(folder / "config.json")
    parts = [folder]
    if config.get("model_type") == "aag":
        required = ["reader", "tokenizer"]
        required += [] if config.get("adapter_context", "none") == "none" else ["document_encoder"]
        for name in required:
            if not (folder / name).is_dir():
                raise InputError(f"{folder}: its part {name} is missing: save the model again.")
        optional = ("question_encoder", "document_encoder", "generator")
        parts = [folder / "reader", *(folder / name for name in optional if (folder / name).is_dir())]
    for part in parts:
        if not any(part.glob("*.safetensors")):
            raise InputError(f"{part}: has no weights, no file that ends in .safetensors: save the model again.")


def _refer_to_base(folder: Path) -> None:
    """Let the parts of a composed model name its base by the model's own name for it, not by a folder of this machine.

    Raises:
        InputError: The base itself is such a folder.
    """
    for name, key in BASES:
        base = read_json(folder / name).get(key)
        if base is not None and Path(base).is_dir():
            raise InputError(
                f"the base model is {base}, a folder of this machine: nobody else could load what is uploaded. Upload "
                f"the base model and set {key} in {folder / name} to its id."
            )
    base = read_json(folder / "config.json").get("base_model_name_or_path")
    for name, key in BASES_OF_PARTS if base is not None else ():
        config = read_json(folder / name)
        if config:
            write_whole(json.dumps(config | {key: base}, indent=2, sort_keys=True).encode(), folder / name)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    (options,) = parse_arguments("publish", (PublishOptions,), argv)
    card = publish(options)
    if options.json:
        print_json({"card": str(card), "repo_id": options.repo_id, "uploaded": options.push})
        return
    sent = f"uploaded to {options.repo_id}" if options.push else "nothing uploaded; add --push true to upload"
    plain_console().print(f"{card}: ready; {sent}.")


if __name__ == "__main__":
    sys.exit(run_command("publish", lambda: main(sys.argv[1:])))
