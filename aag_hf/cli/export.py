"""``aag export``: turns one question's adapter into a plain PEFT LoRA."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from safetensors.torch import save_file

from aag_hf import to_lora
from aag_hf.awakening import AwakeningModel
from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.stage import is_finished, new_directory
from aag_hf.data.errors import InputError


@dataclass
class ExportOptions:
    """Options of ``aag export``."""

    model: str = field(metadata={"help": "A saved model whose reader takes features."})
    question: str = field(metadata={"help": "The question whose adapter is exported."})
    output_dir: str = field(metadata={"help": "Where the LoRA goes."})


def export(model: str, question: str, output_dir: str | Path) -> Path:
    """Write the adapter for `question` as a LoRA that plain PEFT loads.

    Raises:
        InputError: The reader takes no features, or `output_dir` holds something else.
    """
    target = Path(output_dir)
    settings: dict[str, Any] = {"model": str(model), "question": question}
    if is_finished(target, settings):
        return target
    loaded = AwakeningModel.from_pretrained(model)
    if loaded.question_encoder is None:
        raise InputError(f"{model}: its reader has no hypernetwork, so there is no adapter to export for a question.")
    config, weights = to_lora(loaded.reader, loaded.question_encoder.encode([question]))
    with new_directory(target, settings) as directory:
        config.save_pretrained(directory)
        save_file(weights, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    return target


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    (options,) = parse_arguments("export", (ExportOptions,), argv)
    target = export(options.model, options.question, options.output_dir)
    Console().print(f"{target}: load it with peft.PeftModel.from_pretrained(base_model, {str(target)!r})")


if __name__ == "__main__":
    main(sys.argv[1:])
