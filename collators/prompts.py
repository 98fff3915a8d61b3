"""Prompts as token ids: truncation takes from the context, never from the question."""

from typing import Any

from transformers import PreTrainedTokenizerBase

from aag_hf.data.errors import InputError


def check_prompt(field: str, prompt: str, contexts: int) -> None:
    """Refuse a prompt that a record cannot fill.

    Args:
        field: What the prompt is called.
        prompt: Text with ``{question}``, and ``{context}`` as often as `contexts` says.
        contexts: 0 or 1.

    Raises:
        InputError: A placeholder is missing or stands too often.
    """
    if "{question}" not in prompt or prompt.count("{context}") != contexts:
        raise InputError(f"{field} {prompt!r} needs {{question}}, and {{context}} {contexts} times.")


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, template: str, record: dict[str, Any], context: str | None, max_length: int
) -> list[int]:
    """Fill `template` and tokenize it, dropping the context's last tokens where it is longer than `max_length`.

    Args:
        tokenizer: A fast tokenizer: truncation goes by the offsets of its tokens.
        template: Text with ``{question}`` and, if there is a context, ``{context}``; see :func:`check_prompt`.
        record: What has the question.
        context: The context, or ``None``.
        max_length: Most tokens, special ones included.

    Returns:
        Token ids.

    Raises:
        InputError: The prompt does not fit even without its context.
    """
    # Split before filling: question and context may hold braces of their own.
    before, _, after = template.partition("{context}") if context is not None else ("", "", template)
    before, after = (part.replace("{question}", record["question"]) for part in (before, after))
    context = context or ""
    encoded = tokenizer(before + context + after, return_offsets_mapping=bool(context))
    ids, start, end = encoded["input_ids"], len(before), len(before) + len(context)
    inside = [i for i, (a, b) in enumerate(encoded.get("offset_mapping", [])) if a >= start and b <= end and b > a]
    excess = max(len(ids) - max_length, 0)
    if excess > len(inside):
        raise InputError(
            f"record {record['id']}: the question takes {len(ids) - len(inside)} tokens with its prompt, max_length "
            f"is {max_length}: raise max_length or shorten the question."
        )
    dropped = set(inside[len(inside) - excess :])
    return [token for i, token in enumerate(ids) if i not in dropped]


def encode_target(
    tokenizer: PreTrainedTokenizerBase, text: str, max_length: int, is_encoder_decoder: bool
) -> list[int]:
    """Token ids of a target and the end token, which is always trained.

    Args:
        tokenizer: The model's tokenizer.
        text: The target.
        max_length: Most tokens, the end token included; longer targets lose their end token.
        is_encoder_decoder: Otherwise a space parts the target from the prompt it continues.

    Raises:
        InputError: The tokenizer has no end token.
    """
    if tokenizer.eos_token_id is None:
        raise InputError(f"tokenizer {tokenizer.name_or_path!r} has no eos token: set tokenizer.eos_token.")
    text = text.strip() if is_encoder_decoder else " " + text.strip()
    ids = tokenizer(text_target=text, add_special_tokens=False)["input_ids"]
    return [*ids, tokenizer.eos_token_id][:max_length]
