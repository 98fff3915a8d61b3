"""Prompts and padding: what is cut, what stays, and which positions count."""

import pytest
import torch
from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast

from aag_hf.collators.padding import pad, pad_inputs, pad_sequence_to_sequence
from aag_hf.collators.prompts import check_prompt, encode_marked_prompt, encode_prompt, encode_target
from aag_hf.errors import InputError

PROMPT = "{context}\nQ: {question} A:"
CONTEXT = "the map is old"


def record(question="where?"):
    return {"id": "q1", "question": question, "answers": ["here"]}


@pytest.fixture(params=["plain", "begin", "end"])
def tokenizer(request, tiny_tokenizer):
    """Without special tokens, with one at the begin (as Llama's), or one at the end (as T5's)."""
    if request.param == "plain":
        return tiny_tokenizer
    core = Tokenizer.from_str(tiny_tokenizer.backend_tokenizer.to_str())
    single = {"begin": "<unk> $A", "end": "$A </s>"}[request.param]
    core.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("<unk>", 2), ("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def test_truncation_cuts_the_end_of_the_context_and_never_the_question(tokenizer):
    whole = encode_prompt(tokenizer, PROMPT, record(), CONTEXT, 100)
    for cut in range(len(CONTEXT) + 1):
        ids = encode_prompt(tokenizer, PROMPT, record(), CONTEXT, len(whole) - cut)
        kept = CONTEXT[: len(CONTEXT) - cut]
        assert ids == tokenizer(f"{kept}\nQ: where? A:")["input_ids"] and len(ids) == len(whole) - cut


def test_context_between_two_copies_of_the_question_is_what_is_cut(tokenizer):
    ids = encode_prompt(tokenizer, "{question} {context} {question}", record("a?"), "a? a? a?", 10)
    assert tokenizer.decode(ids, skip_special_tokens=True).startswith("a? a?")
    assert tokenizer.decode(ids, skip_special_tokens=True).endswith(" a?")


@pytest.mark.parametrize("template", [PROMPT, "{question} {context}", "Q: {question} A:"])
@pytest.mark.parametrize("max_length", [20, 100])
def test_tokens_of_the_question_are_marked_by_place_not_by_text(tokenizer, template, max_length):
    context = None if "{context}" not in template else "where? or where?"
    ids, marks = encode_marked_prompt(tokenizer, template, record(), context, max_length)
    assert len(marks) == len(ids)
    text = tokenizer.decode(ids)
    place = text.index("where?") if template.startswith("{question}") else text.rindex("where?")
    assert tokenizer.decode([token for token, mark in zip(ids, marks) if mark]) == "where?"
    assert tokenizer.decode(ids[: marks.index(True)]) == text[:place]


@pytest.mark.parametrize("context", [None, "too long to fit"])
def test_a_question_that_does_not_fit_is_refused_by_the_name_of_its_record(tokenizer, context):
    template = "Q: {question} A:" if context is None else PROMPT
    shortest = len(encode_prompt(tokenizer, template, record(), context and "", 100))
    encode_prompt(tokenizer, template, record(), context, shortest)
    message = f"record q1: the question takes {shortest} tokens with its prompt, max_length is {shortest - 1}"
    with pytest.raises(InputError, match=message):
        encode_prompt(tokenizer, template, record(), context, shortest - 1)


@pytest.mark.parametrize("text", ["{context}", "{question}", "{", "}{", "{0} {x!r}", "%s", "\\1"])
def test_braces_in_question_and_context_are_text(tiny_tokenizer, text):
    for template, context, filled in [
        ("{context} Q: {question}", f"<{text}>", f"<{text}> Q: {text}"),
        ("Q: {question} {context}", f"<{text}>", f"Q: {text} <{text}>"),
        ("Q: {question}", None, f"Q: {text}"),
    ]:
        assert tiny_tokenizer.decode(encode_prompt(tiny_tokenizer, template, record(text), context, 100)) == filled


@pytest.mark.parametrize(("prompt", "contexts"), [("", 0), ("Q: A:", 0), ("{question}", 1), ("{context}", 1)])
def test_a_prompt_without_its_placeholders_is_refused_by_its_field(prompt, contexts):
    with pytest.raises(InputError, match=r"context_prompt .* needs"):
        check_prompt("context_prompt", prompt, contexts)


@pytest.mark.parametrize(("prompt", "contexts"), [("{context} {question}", 0), ("{context} {question} {context}", 1)])
def test_a_prompt_with_a_context_too_many_is_refused(prompt, contexts):
    with pytest.raises(InputError, match=f"{{context}} {contexts} times"):
        check_prompt("prompt", prompt, contexts)


def test_targets_end_with_the_end_token_unless_they_are_cut(tokenizer):
    assert encode_target(tokenizer, " abc ", 9, apart=True) == [*pieces(tokenizer, "abc"), 1]
    assert encode_target(tokenizer, " abc ", 9, apart=False) == [*pieces(tokenizer, " abc"), 1]
    assert encode_target(tokenizer, "abc", 4, apart=True) == [*pieces(tokenizer, "abc"), 1]
    assert encode_target(tokenizer, "abc", 3, apart=True) == pieces(tokenizer, "abc")
    assert encode_target(tokenizer, "", 3, apart=True) == [1]


def test_a_tokenizer_without_end_token_is_refused(tiny_tokenizer):
    endless = PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer.backend_tokenizer, pad_token="<pad>")
    with pytest.raises(InputError, match="no eos token"):
        encode_target(endless, "abc", 9, apart=True)


def test_padding_fills_the_shorter_rows_on_its_side():
    assert pad([[5, 6, 7], [8]], 0).tolist() == [[5, 6, 7], [8, 0, 0]]
    assert pad([[5, 6, 7], [8]], -100, "left").tolist() == [[5, 6, 7], [-100, -100, 8]]
    assert pad([[5, 6, 7], []], 0, "left", multiple_of=4).tolist() == [[0, 5, 6, 7], [0, 0, 0, 0]]
    assert pad([[5] * 4], 0, multiple_of=4).shape == (1, 4)


def test_masks_and_positions_go_by_length_not_by_token():
    inputs = pad_inputs([[1, 1, 9], [1]], 1, "left")
    assert inputs["input_ids"].tolist() == [[1, 1, 9], [1, 1, 1]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert inputs["position_ids"].tolist() == [[0, 1, 2], [0, 0, 0]]
    assert "position_ids" not in pad_inputs([[1, 1, 9], [1]], 1, "right")
    assert pad_inputs([[5], [6, 7]], None, "right")["attention_mask"].tolist() == [[1, 0], [1, 1]]


def test_causal_targets_stand_at_the_right_end_of_every_row():
    batch = pad_sequence_to_sequence([[5, 6, 7], [8]], [[2, 1], [3, 4, 1]], 1, is_encoder_decoder=False)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 2, 1], [1, 8, 3, 4, 1]]
    assert batch["labels"].tolist() == [[-100, -100, -100, 2, 1], [-100, -100, 3, 4, 1]]
    assert batch["attention_mask"].tolist() == [[1] * 5, [0, 1, 1, 1, 1]]


def test_encoder_decoder_rows_are_padded_on_the_right():
    batch = pad_sequence_to_sequence([[5, 6, 7], [8]], [[2, 1], [3, 4, 1]], 0, is_encoder_decoder=True)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch["labels"].tolist() == [[2, 1, -100], [3, 4, 1]]
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())


def pieces(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]
