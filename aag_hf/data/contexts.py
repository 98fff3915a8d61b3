"""The contexts that a reader may read beside the question, and the prompts that join both."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

from aag_hf.errors import InputError

ContextSource = Literal["none", "generated", "compressed", "passages"]

READER_PROMPT = "Question: {question}\nAnswer:"
READER_CONTEXT_PROMPT = "{context}\nQuestion: {question}\nAnswer:"
CHAT_PROMPT = "{question}"
CHAT_CONTEXT_PROMPT = "{context}\n\n{question}"
GENERATOR_PROMPT = "Question: {question}\nContext:"

_FIELDS = {"generated": ("generated_context", "generate"), "compressed": ("compressed_context", "compress")}


def context_of(record: dict[str, Any], source: ContextSource, passages: int = 1) -> str | None:
    """The context of `record`, which is read beside its question.

    Args:
        record: A record of the data contract.
        source: ``"none"``; ``"generated"`` or ``"compressed"``, the field of that name; ``"passages"``, the texts of
            the first `passages` entries of `ctxs`.
        passages: How many passages to join.

    Returns:
        The text; ``None`` for ``"none"``.

    Raises:
        InputError: The record lacks the field, or `source` is none of the four.
    """
    if source == "none":
        return None
    if source == "passages":
        if record.get("ctxs") is None:
            raise InputError(f"record {record['id']}: has no ctxs to read: run `aag retrieve` first.")
        return joined_passages(record["ctxs"], passages)
    if source not in _FIELDS:
        raise InputError(f"context must be one of {', '.join(get_args(ContextSource))}, got {source!r}.")
    field, command = _FIELDS[source]
    if record.get(field) is None:
        raise InputError(f"record {record['id']}: has no {field}: run `aag {command}` first.")
    return record[field]


def joined_passages(ctxs: Sequence[dict[str, Any]], passages: int) -> str:
    """The texts of the first `passages` of a record's `ctxs`, one per line.

    Raises:
        InputError: They are not a list of objects with a text.
    """
    for passage in ctxs[:passages] if isinstance(ctxs, (list, tuple)) else [ctxs]:
        if not isinstance(passage, dict) or not isinstance(passage.get("text"), str):
            raise InputError(f"ctxs: expected a list of objects with title and text, found {passage!r:.60}.")
    return "\n".join(passage["text"] for passage in ctxs[:passages])


def target_of(record: dict[str, Any]) -> str:
    """The answer to train on: `target`, or else the first answer."""
    return record.get("target") or record["answers"][0]
