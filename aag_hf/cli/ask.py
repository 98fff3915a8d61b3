"""``aag ask``: asks a saved model questions."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console

from aag_hf.awakening import AwakeningPipeline
from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.options import DTYPES, use_threads
from aag_hf.data.errors import InputError


@dataclass
class AskOptions:
    """Options of ``aag ask``."""

    model: str = field(metadata={"help": "A saved model: directory or Hub id."})
    question: list[str] = field(metadata={"help": "One question or several."})
    dtype: str = field(default="float32", metadata={"help": "Base weights: float32, bfloat16 or float16."})
    threads: int | None = field(default=None, metadata={"help": "CPU threads."})


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    (options,) = parse_arguments("ask", (AskOptions,), argv)
    if options.dtype not in DTYPES:
        raise InputError(f"dtype must be one of {', '.join(DTYPES)}, got {options.dtype!r}.")
    use_threads(options.threads)
    console = Console()
    for result in AwakeningPipeline(options.model, dtype=DTYPES[options.dtype])(options.question):
        console.print(f"[bold]{result['answer']}[/bold]", highlight=False)
        if result["context"] is not None:
            console.print(f"  context from memory: {result['context']}", highlight=False, style="dim")
        timings = ", ".join(f"{stage} {1000 * value:.0f} ms" for stage, value in result["seconds"].items())
        console.print(f"  {timings}", highlight=False, style="dim")


if __name__ == "__main__":
    main(sys.argv[1:])
