"""``aag publish``: writes the model card and, if asked, uploads a saved model."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import HfApi
from rich.console import Console

from aag_hf.awakening import AwakeningConfig
from aag_hf.awakening.card import model_card
from aag_hf.cli.arguments import parse_arguments
from aag_hf.data.errors import InputError
from aag_hf.evaluation.report import results_markdown


@dataclass
class PublishOptions:
    """Options of ``aag publish``."""

    model: str = field(metadata={"help": "Folder of a saved model; its README.md is written."})
    repo_id: str = field(metadata={"help": "Its name on the Hub, owner/name."})
    results: str | None = field(
        default=None, metadata={"help": "results.json of `aag evaluate`; its first row is the model's."}
    )
    dataset: str = field(default="", metadata={"help": "Name of the data set the results were measured on."})
    push: bool = field(default=False, metadata={"help": "Upload. Without it nothing leaves this machine."})
    private: bool = field(default=False, metadata={"help": "With push: a private repository."})


def publish(options: PublishOptions) -> Path:
    """Write the model card; upload the folder only with `push`.

    Returns:
        The card.

    Raises:
        InputError: The folder holds no saved model, results cannot be read, or a base model that only this machine has.
        ValueError: The Hub finds the card's metadata invalid.
    """
    directory = Path(options.model)
    if not (directory / "config.json").is_file() or not (directory / "reader").is_dir():
        raise InputError(f"{directory}: no config.json and reader/ in it: expected what AwakeningModel saved.")
    config = AwakeningConfig.from_pretrained(directory)
    rows = []
    if options.results is not None:
        if not Path(options.results).is_file() or not options.dataset:
            raise InputError(f"results {options.results!r} needs an existing file, and dataset the name of its data.")
        rows = json.loads(Path(options.results).read_text(encoding="utf-8"))
    markdown = results_markdown(rows) if rows else ""
    card = model_card(config, options.repo_id, directory, rows, markdown, options.dataset)
    card.save(directory / "README.md")
    if options.push:
        if Path(str(config.base_model_name_or_path)).is_dir():
            raise InputError(
                f"the base model is {config.base_model_name_or_path}, a folder of this machine: nobody else could load "
                "what is uploaded. Upload the base model and set base_model_name_or_path in config.json to its id."
            )
        card.validate()
        api = HfApi()
        api.create_repo(options.repo_id, private=options.private, exist_ok=True)
        api.upload_folder(repo_id=options.repo_id, folder_path=directory)
    return directory / "README.md"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    (options,) = parse_arguments("publish", (PublishOptions,), argv)
    card = publish(options)
    sent = f"uploaded to {options.repo_id}" if options.push else "nothing uploaded; add --push to upload"
    Console().print(f"{card}: written; {sent}.", highlight=False)


if __name__ == "__main__":
    main(sys.argv[1:])
