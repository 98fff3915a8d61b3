"""``aag ask``: asks a saved model questions."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from aag_hf import DocumentMemory
from aag_hf.awakening import AwakeningModel, AwakeningPipeline
from aag_hf.awakening.documents import text_of
from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.boundary import run_command
from aag_hf.cli.options import LoadingOptions, device, use_threads
from aag_hf.cli.output import plain_console
from aag_hf.errors import InputError


@dataclass(kw_only=True)
class AskOptions(LoadingOptions):
    """Options of ``aag ask``."""

    model: str = field(metadata={"help": "A saved model: directory or Hub id."})
    question: list[str] = field(metadata={"help": "One question or several."})
    document: str | None = field(
        default=None, metadata={"help": "A text, or a file of it, for a model whose adapter is made from documents."}
    )
    memory: str | None = field(
        default=None,
        metadata={"help": "A file that `aag memorize` wrote, instead of document; several texts are summed."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.document is not None and self.memory is not None:
            raise InputError("document and memory were given: name one of them.")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    (options,) = parse_arguments("ask", (AskOptions,), argv)
    use_threads(options.threads)
    # Read first, since a model takes long to load and a wrong file is seen at once.
    memory = None if options.memory is None else DocumentMemory.from_pretrained(options.memory)
    document = None if options.document is None else text_of(options.document)
    model = AwakeningModel.from_pretrained(options.model, **options.loading_arguments()).to(device())
    ask, console = AwakeningPipeline(model), plain_console()
    if document is not None:
        name, text = document
        memory = model.memorize([text], [name])
    ask.memory = None if memory is None else memory.sum()
    for result in ask(options.question):
        console.print(result["answer"], style="bold")
        if result["context"] is not None:
            console.print(f"  context from memory: {result['context']}", style="dim")
        timings = ", ".join(f"{stage} {1000 * value:.0f} ms" for stage, value in result["seconds"].items())
        console.print(f"  {timings}", style="dim")


if __name__ == "__main__":
    sys.exit(run_command("ask", lambda: main(sys.argv[1:])))
