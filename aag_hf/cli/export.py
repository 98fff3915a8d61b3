"""``aag export``: turns questions' adapters into plain PEFT LoRAs."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor

from aag_hf import to_lora
from aag_hf.awakening import AwakeningModel
from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.stage import is_finished, new_directory
from aag_hf.data.records import read_records
from aag_hf.errors import InputError


@dataclass
class ExportOptions:
    """Options of ``aag export``."""

    model: str = field(metadata={"help": "A saved model whose reader takes features."})
    output_dir: str = field(
        metadata={"help": "Where the LoRA goes; with input, one folder a question, named by its id."}
    )
    question: str | None = field(default=None, metadata={"help": "The question whose adapter is exported."})
    input: str | None = field(default=None, metadata={"help": "Records whose questions' adapters are exported."})
    mean: bool = field(
        default=False, metadata={"help": "With input: one adapter only, made from the mean of the questions' features."}
    )

    def __post_init__(self) -> None:
        if (self.question is None) == (self.input is None):
            raise InputError("name either one question, or input, a file of records.")
        if self.mean and self.input is None:
            raise InputError("mean is taken over the questions of input: name a file of records.")


def export(options: ExportOptions) -> list[Path]:
    """Write each question's adapter, or their mean, as a LoRA that plain PEFT loads.

    Returns:
        The folders of the LoRAs.

    Raises:
        InputError: The reader takes no features, `input` cannot be used, or a folder holds something else.
    """
    target = Path(options.output_dir)
    if options.question is not None:
        questions = {target: options.question}
    else:
        records = read_records(options.input)
        questions = {target / quote(record["id"], safe=""): record["question"] for record in records}
    model = AwakeningModel.from_pretrained(options.model)
    if model.question_encoder is None:
        raise InputError(f"{options.model}: its reader has no hypernetwork, so no question has an adapter to export.")
    asked = list(questions.values())
    contexts = model.write_contexts(asked) if model.config.features_read_context else None
    features = model.encode_features(asked, contexts)
    if options.mean:
        settings = {"model": options.model, "mean_of": asked}
        return [_write(model, features.mean(dim=0, keepdim=True), target, settings)]
    return [
        _write(model, vector, folder, {"model": options.model, "question": question})
        for vector, (folder, question) in zip(features, questions.items())
    ]


def _write(model: AwakeningModel, features: Tensor, target: Path, settings: dict[str, Any]) -> Path:
    if not is_finished(target, settings):
        config, weights = to_lora(model.reader, features)
        with new_directory(target, settings) as directory:
            config.save_pretrained(directory)
            save_file(weights, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    return target


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    (options,) = parse_arguments("export", (ExportOptions,), argv)
    folders = export(options)
    written = str(folders[0]) if len(folders) == 1 else f"{len(folders)} adapters in {options.output_dir}"
    Console().print(f"{written}: load with peft.PeftModel.from_pretrained(base_model, folder)", highlight=False)


if __name__ == "__main__":
    main(sys.argv[1:])
