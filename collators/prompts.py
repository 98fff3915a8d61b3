"""Prompts as token ids. Truncation shortens the context, never the question."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from aag_hf.errors import InputError

Span = tuple[int, int]

_NAMES = {"contexts": "prompts lost the end of their context", "answers": "answers lost their end"}
_NAMES |= {"passages": "passages lost their end", "questions": "questions were cut for the question encoder"}


class Cuts(Counter[str]):
    """How many texts of each kind were shortened to fit: `contexts`, `passages`, `answers`, `questions`."""

    def told(self) -> str:
        """One sentence about all of them. It is empty if nothing was cut."""
        return "; ".join(f"{count} {_NAMES.get(kind, kind)}" for kind, count in sorted(self.items()) if count)


def check_columns(records: Sequence[dict[str, Any]], *columns: str) -> None:
    """Refuse rows that lost their columns on the way from the data set.

    Raises:
        InputError: A record lacks one of the columns.
    """
    for record in records:
        missing = [name for name in columns if name not in record]
        if missing:
            raise InputError(
                f"a record has no {' and no '.join(missing)}, only {', '.join(record) or 'nothing'}: a Trainer drops "
                "columns the model does not take unless its arguments say remove_unused_columns=False."
            )


def check_prompt(field: str, prompt: str, contexts: int) -> None:
    """Refuse a prompt that a record cannot fill.

    Args:
        field: The name of the prompt.
        prompt: Text with ``{question}``, and ``{context}`` as often as `contexts` says.
        contexts: 0 or 1.

    Raises:
        InputError: A placeholder is missing, or stands in the prompt too often.
    """
    if "{question}" not in prompt or prompt.count("{context}") != contexts:
        raise InputError(f"{field} {prompt!r} needs {{question}}, and {{context}} {contexts} times.")


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, template: str, record: dict[str, Any], context: str | None, max_length: int
) -> list[int]:
    """Token ids of a filled `template`: see [`encode_marked_prompt`]."""
    return encode_marked_prompt(tokenizer, template, record, context, max_length)[0]


def encode_marked_prompt(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    record: dict[str, Any],
    context: str | None,
    max_length: int,
    cut: Cuts | None = None,
    chat: bool = False,
) -> tuple[list[int], list[bool]]:
    """Fill and tokenize `template`, without the context's last tokens if it is longer than `max_length`.

    Args:
        tokenizer: The tokenizer. It must be fast if there is a context or the marks are read, since both need the
            tokens' offsets.
        template: Text with ``{question}`` and, if there is a context, ``{context}``; see [`check_prompt`].
        record: The record with the question.
        context: The context, or ``None``.
        max_length: The most tokens, special ones included.
        cut: Counts the contexts that were cut.
        chat: Whether `template` consists of turns of a chat, which have their special tokens already.

    Returns:
        The token ids, and for each whether it belongs to the question.

    Raises:
        InputError: The prompt does not fit even without its context.
    """
    text, spans = fill_prompt(template, record["question"], context)
    encoded = tokenizer(text, return_offsets_mapping=tokenizer.is_fast, add_special_tokens=not chat)
    ids, offsets = encoded["input_ids"], encoded.get("offset_mapping", [])
    inside = [i for i, (a, b) in enumerate(offsets) if any(start <= a < b <= end for start, end in spans["{context}"])]
    excess = max(len(ids) - max_length, 0)
    if excess > len(inside):
        raise InputError(
            f"record {record['id']}: the question takes {len(ids) - len(inside)} tokens with its prompt, max_length "
            f"is {max_length}: raise max_length or shorten the question."
        )
    if excess and cut is not None:
        cut["contexts"] += 1
    dropped = set(inside[len(inside) - excess :])
    in_question = mark_tokens(offsets, spans["{question}"])
    return (
        [token for i, token in enumerate(ids) if i not in dropped],
        [mark for i, mark in enumerate(in_question) if i not in dropped],
    )


def mark_tokens(offsets: Sequence[Span], spans: Sequence[Span]) -> list[bool]:
    """For each token, whether it overlaps one of the spans of the text.

    Args:
        offsets: The start and end of each token in the text.
        spans: The start and end of each span.
    """
    # Overlap decides, not containment, since some tokenizers count the space before a word as part of it.
    return [any(first < end and last > max(start, first) for start, end in spans) for first, last in offsets]


def fill_prompt(template: str, question: str, context: str | None) -> tuple[str, dict[str, list[Span]]]:
    """The filled template, with the spans of question and context. Both may contain placeholders as text.

    Args:
        template: Text with ``{question}`` and, if there is a context, ``{context}``.
        question: The question.
        context: The context, or ``None``.
    """
    values = {"{question}": question} | ({} if context is None else {"{context}": context})
    text = ""
    spans: dict[str, list[Span]] = {"{question}": [], "{context}": []}
    for piece in re.split(r"(\{question\}|\{context\})", template):
        filled = values.get(piece, piece)
        if piece in values:
            spans[piece].append((len(text), len(text) + len(filled)))
        text += filled
    return text, spans


def encode_target(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    max_length: int,
    apart: bool,
    cut: Cuts | None = None,
    kind: str = "answers",
) -> list[int]:
    """Token ids of a target and the end token, which is always trained.

    Args:
        tokenizer: The model's tokenizer.
        text: The target.
        max_length: The most tokens, the end token included. Longer targets lose their end token.
        apart: Whether it begins a text of its own, in a decoder or as a turn of a chat. Otherwise a space stands
            between it and the prompt.
        cut: Counts the targets that were cut.
        kind: The kind of target, for `cut`.

    Raises:
        InputError: The tokenizer has no end token.
    """
    if tokenizer.eos_token_id is None:
        raise InputError(f"tokenizer {tokenizer.name_or_path!r} has no eos token: set tokenizer.eos_token.")
    text = text.strip() if apart else " " + text.strip()
    ids = tokenizer(text_target=text, add_special_tokens=False)["input_ids"]
    if len(ids) + 1 > max_length and cut is not None:
        cut[kind] += 1
    return [*ids, tokenizer.eos_token_id][:max_length]
