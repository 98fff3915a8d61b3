"""``aag ask``: asks a saved model questions."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from aag_hf.awakening import AwakeningModel, AwakeningPipeline
from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.boundary import run_command
from aag_hf.cli.options import LoadingOptions, device, use_threads
from aag_hf.cli.output import plain_console


@dataclass(kw_only=True)
class AskOptions(LoadingOptions):
    """Options of ``aag ask``."""

    model: str = field(metadata={"help": "A saved model: directory or Hub id."})
    question: list[str] = field(metadata={"help": "One question or several."})


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    (options,) = parse_arguments("ask", (AskOptions,), argv)
    use_threads(options.threads)
    model = AwakeningModel.from_pretrained(options.model, **options.loading_arguments())
    console = plain_console()
    for result in AwakeningPipeline(model.to(device()))(options.question):
        console.print(result["answer"], style="bold")
        if result["context"] is not None:
            console.print(f"  context from memory: {result['context']}", style="dim")
        timings = ", ".join(f"{stage} {1000 * value:.0f} ms" for stage, value in result["seconds"].items())
        console.print(f"  {timings}", style="dim")


if __name__ == "__main__":
    sys.exit(run_command("ask", lambda: main(sys.argv[1:])))
