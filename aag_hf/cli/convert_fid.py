"""``aag convert-fid``: turns one of FiD's original checkpoints into an ordinary model directory."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.boundary import run_command
from aag_hf.cli.output import plain_console
from aag_hf.fid import convert_fid_checkpoint


@dataclass
class ConvertFidOptions:
    """Options of ``aag convert-fid``."""

    source: str = field(metadata={"help": "Directory with config.json and pytorch_model.bin or model.safetensors."})
    output_dir: str = field(metadata={"help": "Directory to write; it must not exist."})


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    (options,) = parse_arguments("convert-fid", (ConvertFidOptions,), argv)
    directory = convert_fid_checkpoint(options.source, options.output_dir)
    plain_console().print(
        f"{directory}: load it with FiDT5ForConditionalGeneration.from_pretrained, or train with "
        f"--model_name_or_path {directory} --fid true",
    )


if __name__ == "__main__":
    sys.exit(run_command("convert-fid", lambda: main(sys.argv[1:])))
