"""Prompts as turns of a chat: the tokens are those of `apply_chat_template`, and the question keeps its place."""

import copy

import pytest
import torch

from aag_hf.collators import DataCollatorForContextDistillation, ReaderPrompt, build_prompt
from aag_hf.collators.chat import is_instruct
from aag_hf.collators.prompts import Cuts, encode_marked_prompt
from aag_hf.errors import InputError

# As the families write them: a system turn of their own, trimmed turns after a begin token, turns in brackets.
TEMPLATES = {
    "smollm, qwen": "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou help.</s>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
    "llama": "{{ bos_token }}{% if not date_string is defined %}{% set date_string = strftime_now('%Y') %}{% endif %}"
    "Today: {{ date_string }}\n{% for m in messages %}<|{{ m['role'] }}|>\n\n{{ m['content'] | trim }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n\n{% endif %}",
    "gemma": "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}<start_of_turn>"
    "{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
    "mistral": "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }}</s>{% endif %}{% endfor %}",
}
RECORD = {"id": "q1", "question": "who wrote {it}?", "answers": ["Ann Lee"], "generated_context": "a map, an ink"}
SHOT = {"id": "s1", "question": "where is Suva?", "answers": ["Fiji"]}
FIXED = {"date_string": "26 Jul 2024", "enable_thinking": False}


@pytest.fixture(params=TEMPLATES)
def tokenizer(request, tiny_tokenizer):
    """One that adds a begin token to every text, as Llama's does."""
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer.from_str(tiny_tokenizer.backend_tokenizer.to_str())
    core.post_processor = processors.TemplateProcessing(single="<unk> $A", special_tokens=[("<unk>", 2)])
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "bos_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=core, chat_template=TEMPLATES[request.param], **names)


def turns(*contents):
    return [{"role": role, "content": text} for role, text in zip(("user", "assistant") * len(contents), contents)]


def expected_ids(tokenizer, *contents):
    text = tokenizer.apply_chat_template(turns(*contents), tokenize=False, add_generation_prompt=True, **FIXED)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_the_tokens_are_those_of_the_chat_template(tokenizer):
    prompt = build_prompt("{question}", chat_tokenizer=tokenizer)
    ids, marks = encode_marked_prompt(tokenizer, prompt, RECORD, None, 400, chat=True)
    assert ids == expected_ids(tokenizer, RECORD["question"])
    assert tokenizer.decode([token for token, mark in zip(ids, marks) if mark]) == RECORD["question"]


def test_examples_are_turns_before_the_question(tokenizer):
    prompt = build_prompt("{context}\n\n{question}", [(SHOT, "an atlas")], tokenizer)
    ids, _ = encode_marked_prompt(tokenizer, prompt, RECORD, "a map", 400, chat=True)
    assert ids == expected_ids(tokenizer, f"an atlas\n\n{SHOT['question']}", "Fiji", f"a map\n\n{RECORD['question']}")


def test_what_is_cut_is_the_context_and_it_is_counted(tokenizer):
    prompt = build_prompt("{context}\n\n{question}", chat_tokenizer=tokenizer)
    whole, _ = encode_marked_prompt(tokenizer, prompt, RECORD, "abcdefgh", 400, chat=True)
    cut = Cuts()
    ids, marks = encode_marked_prompt(tokenizer, prompt, RECORD, "abcdefgh", len(whole) - 3, cut, chat=True)
    assert ids == expected_ids(tokenizer, f"abcde\n\n{RECORD['question']}") and cut == {"contexts": 1}
    assert tokenizer.decode([token for token, mark in zip(ids, marks) if mark]) == RECORD["question"]
    with pytest.raises(InputError, match="record q1: the question takes"):
        encode_marked_prompt(tokenizer, prompt, RECORD, "abcdefgh", len(whole) - 9, chat=True)


@pytest.mark.parametrize("padding_free", [False, True])
def test_the_answer_begins_the_assistants_turn_and_ends_it(tokenizer, padding_free):
    prompts = {"prompt": "{question}", "context_prompt": "{context}\n\n{question}"}
    prompts = {name: build_prompt(text, chat_tokenizer=tokenizer) for name, text in prompts.items()}
    student, teacher = (
        ReaderPrompt(context, chat=True, prompt_max_length=400, **prompts) for context in ("none", "generated")
    )
    collator = DataCollatorForContextDistillation(
        tokenizer, student=student, teacher=teacher, padding_free=padding_free
    )
    batch = collator([RECORD])
    answer = tokenizer("Ann Lee", add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    for side, context in (("", ""), ("teacher_", "a map, an ink\n\n")):
        ids, labels = batch[f"{side}input_ids"][0].tolist(), batch[f"{side}labels"][0].tolist()
        assert ids == expected_ids(tokenizer, context + RECORD["question"]) + answer
        assert [token for token in labels if token != -100] == answer and labels[-len(answer) :] == answer
    generating = collator.generation_inputs([RECORD])["input_ids"]
    assert torch.equal(generating, batch["input_ids"][:, : -len(answer)])


def test_a_student_in_a_chat_has_no_teacher_outside_of_it(tiny_tokenizer):
    with pytest.raises(InputError, match="let both be asked in a chat"):
        DataCollatorForContextDistillation(tiny_tokenizer, teacher=ReaderPrompt("generated", chat=True))


def test_who_was_trained_on_chats(tokenizer, tiny_tokenizer, request):
    gemma = "end_of_turn" in tokenizer.chat_template
    assert is_instruct(tokenizer, "some/model") != gemma
    assert is_instruct(tokenizer, "google/gemma-3-270m-it") and is_instruct(tokenizer, "/models/my.Instruct-v2/")
    base = copy.deepcopy(tokenizer)
    base.chat_template = base.chat_template.replace("</s>", "<end_of_turn>")
    assert not is_instruct(base, "Qwen/Qwen2.5-0.5B") and not is_instruct(base, "chat/base")
    assert not is_instruct(tiny_tokenizer, "model-instruct")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('No such role') }}", "its chat template fails: No such role"),
        ("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}", "expected its placeholders once each"),
    ],
)
def test_a_template_that_fails_or_changes_the_prompt_is_refused(template, message, tiny_tokenizer):
    broken = copy.deepcopy(tiny_tokenizer)
    broken.chat_template = template
    with pytest.raises(InputError, match=message):
        build_prompt("{question}", chat_tokenizer=broken)


def test_plain_examples_stand_before_the_question():
    shots = [({"id": "1", "question": "{x}?", "answers": ["a", "b"]}, "old"), (SHOT, "new")]
    prompt = build_prompt("{context}\nQ: {question}\nA:", shots)
    assert prompt == "old\nQ: {x}?\nA: a\n\nnew\nQ: where is Suva?\nA: Fiji\n\n{context}\nQ: {question}\nA:"
    with pytest.raises(InputError, match="record 1: holds a placeholder"):
        build_prompt("{question}", [({"id": "1", "question": "{question}", "answers": ["a"]}, None)])
