"""Prompts with answered examples before the question, and prompts as turns of a chat."""

import re
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from aag_hf.collators.prompts import fill_prompt
from aag_hf.data.contexts import target_of
from aag_hf.errors import InputError

Shot = tuple[dict[str, Any], str | None]

_PLACEHOLDER = re.compile(r"\{question\}|\{context\}")
_INSTRUCT = re.compile(r"(?i)(^|[-_.])(instruct|chat|it)($|[-_.])")
# Some templates write today's date, but what was trained today must be read alike tomorrow. Others invite the model to
# think aloud first, but answers are short.
_FIXED = {"date_string": "26 Jul 2024", "enable_thinking": False}


def build_prompt(
    template: str, shots: Sequence[Shot] = (), chat_tokenizer: PreTrainedTokenizerBase | None = None
) -> str:
    """A prompt that begins with answered questions, as one text or as turns of a chat.

    Args:
        template: Text with ``{question}`` and, if a context is read, ``{context}``.
        shots: Records, each with the context that is read beside it.
        chat_tokenizer: A tokenizer whose chat template makes `template` the user's turn, up to the beginning of the
            answer, and each example two turns before it. Such a prompt has all its special tokens, so its reader must
            be told that it is a `chat`.

    Returns:
        A template for the question that is asked, with the same placeholders.

    Raises:
        InputError: An example contains a placeholder as text, or the chat template fails or loses a placeholder.

    Example:

    ```python
    prompt = build_prompt("{context}\\n\\n{question}", chat_tokenizer=tokenizer)
    reader = ReaderPrompt(context="passages", context_prompt=prompt, chat=True)
    ```
    """
    answered = []
    for record, context in shots:
        asked, answer = fill_prompt(template, record["question"], context)[0], target_of(record)
        if _PLACEHOLDER.search(asked + answer):
            raise InputError(f"record {record['id']}: holds a placeholder of prompts as text: drop it from the file.")
        answered.append((asked, answer))
    if chat_tokenizer is None:
        return "\n\n".join([*(f"{asked} {answer}" for asked, answer in answered), template])
    turns = [turn for pair in answered for turn in zip(("user", "assistant"), pair)]
    prompt = _render(chat_tokenizer, [*turns, ("user", template)], add_generation_prompt=True)
    if _PLACEHOLDER.findall(prompt) != _PLACEHOLDER.findall(template):
        raise InputError(
            f"the chat template makes {prompt!r} of the prompt {template!r}: expected its placeholders once each: ask "
            "for plain prompts."
        )
    return prompt


def is_instruct(tokenizer: PreTrainedTokenizerBase, name: str) -> bool:
    """Whether a model was trained on chats, as far as that can be told.

    Such a model has a chat template. Besides, it ends a turn with its end token, which base models with a template do
    not, or its name says so.

    Args:
        tokenizer: The model's tokenizer.
        name: The model's name or path.
    """
    if tokenizer.chat_template is None:
        return False
    if _INSTRUCT.search(name.rstrip("/").rpartition("/")[2]):
        return True
    answered = _render(tokenizer, [("user", "?"), ("assistant", "answer")])
    return tokenizer.eos_token is not None and tokenizer.eos_token in answered.rpartition("answer")[2]


def _render(tokenizer: PreTrainedTokenizerBase, turns: Sequence[tuple[str, str]], **options: Any) -> str:
    messages = [{"role": role, "content": text} for role, text in turns]
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, **_FIXED, **options)
    except (TemplateError, ValueError) as error:
        raise InputError(f"tokenizer {tokenizer.name_or_path!r}: its chat template fails: {error}") from None
