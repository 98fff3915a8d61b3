"""What ``aag quickstart`` trains, at which size, and what it says about its table."""

from dataclasses import dataclass
from typing import Literal

# The generator and the readers learn from different countries: what the generator writes about its own is better than
# what it writes about others, and the readers must meet what they will meet.
SPLITS = ("generator", "train", "dev", "test")
CONTEXT_TOKENS = 64
EXAMPLE = (
    "Nuvaria is a small country in Western Asia. Its capital is Brelmont, its people are called Nuvari and its calling "
    "code is +978."
)


@dataclass(frozen=True)
class Size:
    """How much of everything a preset does.

    `countries` cuts each split; `static_rank` gives the static LoRA about as many trained parameters as HyperLoRA.
    """

    dtype: str
    countries: dict[str, int]
    batch: int
    closed_book_steps: int
    context_steps: int
    document_steps: int
    generator_steps: int
    memory_steps: int
    made_countries: int
    made_things: int
    feature_dim: int
    static_rank: int


SIZES = {
    "standard": Size(
        dtype="auto",
        countries={"generator": 48, "train": 64, "dev": 10, "test": 36},
        batch=16,
        closed_book_steps=80,
        context_steps=22,
        document_steps=16,
        generator_steps=22,
        memory_steps=300,
        made_countries=400,
        made_things=1200,
        feature_dim=16,
        static_rank=25,
    ),
    "smoke": Size(
        dtype="float32",
        countries=dict.fromkeys(SPLITS, 7),
        batch=8,
        closed_book_steps=3,
        context_steps=3,
        document_steps=3,
        generator_steps=3,
        memory_steps=3,
        made_countries=5,
        made_things=5,
        feature_dim=16,
        static_rank=8,
    ),
}


@dataclass(frozen=True)
class Reader:
    """A reader the quickstart trains, and its row of the table."""

    folder: str
    name: str
    method: Literal["aag", "lora"]
    context: Literal["none", "generated", "passages"]
    learning_rate: float


DOCUMENT_READER = Reader("document", "static LoRA + document in the prompt", "lora", "passages", 4e-3)
READERS = (
    Reader("lora_closed_book", "static LoRA, closed book", "lora", "none", 2e-3),
    Reader("hyperlora_closed_book", "HyperLoRA from the question", "aag", "none", 8e-4),
    Reader("lora_generated", "static LoRA + generated context in the prompt", "lora", "generated", 2e-3),
)
MEMORY = "document_memory"
MEMORY_BATCH, MEMORY_RATE = 24, 1e-3

READING = (
    "What the table shows: how much each part adds over the base model on countries no reader was trained on. Closed "
    "book, only the language model's own memory can answer, and an adapter made from the question knows no more than "
    "that. An adapter made from the document does: it is made once, in one pass, and the prompt holds the question "
    "alone. The rows with shuffled features and with another document give each question an adapter that is not its "
    "own: what is lost there is what the adapter drew from its question or document.",
    "What it does not show: that one method beats another by less than about two standard errors, which here are taken "
    "over countries and leave out the spread between seeds (several points); or anything about larger models, other "
    "texts and more than one document at a time. Documents and questions here are short and alike.",
)
