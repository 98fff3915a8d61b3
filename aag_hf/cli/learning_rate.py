"""The learning rate where none is given: the Trainer's own suits the training of all weights, not of adapters."""

from dataclasses import dataclass, field

from aag_hf.trainers import ContextDistillationConfig, ContextGeneratorConfig

# HyperLoRA's matrices are sums of many trained parts, so it learns at half the rate of a plain LoRA.
RATES = {"full": 5e-5, "lora": 1e-3, "question": 5e-4, "both": 5e-4, "document": 1e-3}
_HELP = "The initial learning rate; by default 5e-5 for all weights, 1e-3 for LoRA"


@dataclass
class ReaderArguments(ContextDistillationConfig):
    """The arguments of a reader's trainer."""

    learning_rate: float | None = field(
        default=None, metadata={"help": f"{_HELP} and adapters from documents, 5e-4 for those from questions."}
    )


@dataclass
class GeneratorArguments(ContextGeneratorConfig):
    """The arguments of a context generator's trainer."""

    learning_rate: float | None = field(default=None, metadata={"help": f"{_HELP}."})


def settle_learning_rate(arguments: ReaderArguments | GeneratorArguments, trained: str) -> None:
    """Set the learning rate of what is trained, a key of `RATES`, where none is given."""
    if arguments.learning_rate is None:
        arguments.learning_rate = RATES[trained]
