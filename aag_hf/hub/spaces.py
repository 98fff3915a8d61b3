"""The folder of a Hub Space that shows a published model with `aag demo`."""

import json
from importlib.metadata import version
from pathlib import Path

from huggingface_hub import RepoCard

from aag_hf.data.jsonl import write_whole
from aag_hf.errors import InputError
from aag_hf.hub.cards import OURS, check_repository, write_card

# The version that the page was tested with.
GRADIO = "6.31.0"
PYTHON = "3.12"

APP = """\
import sys

from aag_hf.cli.boundary import run_command
from aag_hf.cli.demo import main

sys.exit(run_command("demo", lambda: main(["--model", {model}, "--host", "0.0.0.0"])))
"""
CARD = """\
---
{metadata}
---

# {title}

[`{title}`](https://huggingface.co/{model}) to try in the browser. The page is `aag demo` of
[aag-hf](https://pypi.org/project/aag-hf).

{ours}
"""


def write_space(folder: str | Path, model: str) -> None:
    """Write app.py, requirements.txt and README.md of a Space. A README.md of your own stays.

    Args:
        folder: Where to; it is made if need be.
        model: Name of the model on the Hub, which the Space loads.

    Raises:
        InputError: The model is a folder of this machine, or no name that the Hub accepts.
    """
    if Path(model).exists():
        raise InputError(f"{model}: is on this machine, where no Space finds it: publish it, and give its name there.")
    check_repository(model)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {
        "title": model.rpartition("/")[2],
        "sdk": "gradio",
        "sdk_version": GRADIO,
        "python_version": PYTHON,
        "app_file": "app.py",
        "models": [model],
        "tags": ["aag-hf"],
    }
    lines = "\n".join(f"{name}: {json.dumps(value)}" for name, value in metadata.items())
    card = RepoCard(CARD.format(metadata=lines, title=metadata["title"], model=model, ours=OURS))
    write_card(card, folder)
    write_whole(APP.format(model=json.dumps(model)).encode(), folder / "app.py")
    write_whole(f"aag-hf[demo]=={version('aag-hf')}\n".encode(), folder / "requirements.txt")
