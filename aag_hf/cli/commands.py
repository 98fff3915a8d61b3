"""The commands, and names that a user may have misspelt."""

from collections.abc import Iterable
from difflib import get_close_matches

COMMANDS = {
    "data": "convert a data set into records",
    "convert-fid": "turn an original Fusion-in-Decoder checkpoint into a model directory",
    "index": "index a pool of passages, for any number of searches",
    "retrieve": "find passages for each question with BM25",
    "compress": "compress each question's passages with LongLLMLingua",
    "train-generator": "stage 1: train the context generator",
    "generate": "write a context for each question from memory",
    "train": "stage 2: train a reader, with or without a teacher",
    "evaluate": "measure a reader and its controls",
    "compare": "tell whether one reader is better than another, question by question",
    "memorize": "read documents into memories, to ask a model about them",
    "ask": "ask a saved model a question",
    "demo": "try a saved model in the browser",
    "serve": "answer over HTTP, as the OpenAI API does",
    "export": "turn the adapter of a question or a document into a plain PEFT LoRA",
    "publish": "write the card of a saved model, or of data, and upload it",
    "quickstart": "run every stage at a small size",
}


def closest(name: str, known: Iterable[str]) -> str:
    """The known name that is closest to an unknown one, worded for a message; empty if none is close."""
    alike = get_close_matches(name, list(known), n=1)
    return f" (did you mean {alike[0]}?)" if alike else ""
