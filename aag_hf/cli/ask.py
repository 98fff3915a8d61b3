"""``aag ask``: asks a saved model questions."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aag_hf import DocumentMemory
from aag_hf.awakening import AwakeningModel, AwakeningPipeline
from aag_hf.awakening.aggregation import DraftOptions
from aag_hf.awakening.documents import text_of
from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.boundary import run_command
from aag_hf.cli.options import LoadingOptions
from aag_hf.cli.output import JSON_HELP, plain_console, print_json
from aag_hf.cli.processes import device, use_threads
from aag_hf.errors import InputError
from aag_hf.questions.relevance import LITTLE


@dataclass(kw_only=True)
class AskOptions(DraftOptions, LoadingOptions):
    """Options of ``aag ask``."""

    model: str = field(metadata={"help": "A saved model: directory or Hub id."})
    question: list[str] = field(metadata={"help": "One question or several."})
    document: list[str] = field(
        default_factory=list,
        metadata={
            "help": "A text, or a file of it, for a model whose adapter is made from documents. Of several, or of the "
            "passages of a long one, each question is answered from the one that its words fit best."
        },
    )
    memory: str | None = field(
        default=None, metadata={"help": "A file that `aag memorize` wrote of one or more texts, instead of document."}
    )
    sum: bool = field(
        default=False, metadata={"help": "Answer from the sum of all documents instead, each read as a whole."}
    )
    min_score: float | None = field(
        default=None,
        metadata={"help": "Give no answer with a lower score, the mean log-probability of an answer's tokens."},
    )
    min_relevance: float = field(
        default=0.0,
        metadata={
            "help": "Give no answer from a document of less relevance: the share of the question's words in it, "
            "in [0, 1]. Rare words count most. 0.1 refuses most documents about something else."
        },
    )
    json: bool = field(default=False, metadata={"help": JSON_HELP})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check()
        if self.document and self.memory is not None:
            raise InputError("document and memory were given: name one of them.")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    (options,) = parse_arguments("ask", (AskOptions,), argv)
    use_threads(options.threads)
    # Read first, since a model takes long to load and a wrong file is seen at once.
    memory = None if options.memory is None else DocumentMemory.from_pretrained(options.memory)
    for document in options.document:
        text_of(document)
    ask = AwakeningPipeline(AwakeningModel.from_pretrained(options.model, **options.loading_arguments()).to(device()))
    if options.document:
        memory = ask.read(*options.document, by_passage=not options.sum)
    ask.memory = memory.sum() if memory is not None and options.sum else memory
    results = ask(options.question, min_score=options.min_score, min_relevance=options.min_relevance, drafts=options)
    for result in results:
        if options.json:
            print_json(result)
        else:
            _print(result)
    blank = sum(not question.strip() for question in options.question)
    if blank:
        raise InputError(f"{blank} of {len(options.question)} questions are blank and have no answer.")


def _print(result: dict[str, Any]) -> None:
    """The answer to the standard output, and how it came about to the standard error."""
    answers, details = plain_console(), plain_console(stderr=True)
    if result["answer"] is not None:
        answers.print(result["answer"], style="bold")
    else:
        answers.print("(no answer)", style="dim")
    if result["context"] is not None:
        details.print(f"  context from memory: {result['context']}", style="dim")
    facts = [f"{stage} {1000 * value:.0f} ms" for stage, value in result["seconds"].items()]
    facts += [] if result["score"] is None else [f"score {result['score']:.2f}"]
    relevance = result.get("relevance")
    facts += [] if relevance is None else [f"relevance {relevance:.2f}"]
    details.print(f"  {', '.join(facts)}", style="dim")
    if "document" in result and result["document"] is None:
        details.print("  answered without a document: none shares a word with this question", style="dim")
    elif relevance is not None and relevance < LITTLE:
        details.print(f"  the document {result['document']!r} is hardly about this question", style="dim")


if __name__ == "__main__":
    sys.exit(run_command("ask", lambda: main(sys.argv[1:])))
