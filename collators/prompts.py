"""Prompts as token ids: truncation takes from the context, never from the question."""

from transformers import PreTrainedTokenizerBase

from aag_hf.data.errors import InputError


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, template: str, question: str, context: str | None, max_length: int
) -> list[int]:
    """Fill `template` and tokenize it, dropping the context's last tokens where it is longer than `max_length`.

    Args:
        tokenizer: A fast tokenizer: truncation goes by the offsets of its tokens.
        template: Text with ``{question}`` and, if there is a context, ``{context}``.
        question: The question.
        context: The context, or ``None``.
        max_length: Most tokens, special ones included.

    Returns:
        Token ids.

    Raises:
        InputError: A placeholder is missing, or the prompt does not fit even without its context.
    """
    if "{question}" not in template or (context is not None and "{context}" not in template):
        raise InputError(f"prompt {template!r} needs {{question}}, and {{context}} where there are contexts.")
    if context is None:
        ids = tokenizer(template.replace("{question}", question))["input_ids"]
        excess, inside = len(ids) - max_length, []
    else:
        before, after = template.split("{context}")
        before, after = before.replace("{question}", question), after.replace("{question}", question)
        encoded = tokenizer(before + context + after, return_offsets_mapping=True)
        ids, start, end = encoded["input_ids"], len(before), len(before) + len(context)
        inside = [i for i, (a, b) in enumerate(encoded["offset_mapping"]) if a >= start and b <= end and b > a]
        excess = len(ids) - max_length
    if excess > len(inside):
        raise InputError(
            f"question {question[:60]!r} takes {len(ids) - len(inside)} tokens with its prompt, max_length is "
            f"{max_length}: raise max_length or shorten the question."
        )
    dropped = set(inside[len(inside) - excess :]) if excess > 0 else set()
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
