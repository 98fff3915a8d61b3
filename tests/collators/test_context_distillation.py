"""Batches for the reader: what student and teacher read about the same questions."""

import copy

import pytest
import torch
from torch.utils.data import DataLoader

from aag_hf.collators import DataCollatorForContextDistillation, DataCollatorForFiD, ReaderPrompt
from aag_hf.errors import InputError

RECORDS = [
    {
        "id": "q1",
        "question": "who?",
        "answers": ["ann", "ann b."],
        "compressed_context": "ann wrote it",
        "generated_context": "by ann",
        "ctxs": [{"title": "a", "text": "ann wrote it in spring"}, {"title": "b", "text": "bob read it"}],
        "features": [0.5, 1.0, -1.0],
    },
    {
        "id": "q2",
        "question": "in which year was it written?",
        "answers": ["1900"],
        "target": "in 1900",
        "compressed_context": "1900",
        "generated_context": "",
        "ctxs": [{"title": "a", "text": "1900"}],
        "features": [2.0, 0.0, 3.0],
    },
]
kinds = pytest.mark.parametrize("is_encoder_decoder", [False, True])


def rows(tensor, mask):
    return [row[keep.bool()].tolist() for row, keep in zip(tensor, mask)]


def collator_of(tokenizer, is_encoder_decoder=False, **options):
    readers = {"student": ReaderPrompt("generated", 2), "teacher": ReaderPrompt("passages", 2)}
    options = {**readers, "needs_features": True, **options}
    return DataCollatorForContextDistillation(tokenizer, is_encoder_decoder, **options)


@kinds
def test_student_and_teacher_train_the_same_answer_tokens_in_the_same_order(tiny_tokenizer, is_encoder_decoder):
    batch = collator_of(tiny_tokenizer, is_encoder_decoder)(RECORDS)
    student, teacher = batch["labels"], batch["teacher_labels"]
    assert torch.equal(student[student != -100], teacher[teacher != -100])
    lead = "" if is_encoder_decoder else " "
    assert [tiny_tokenizer.decode(r) for r in rows(student, student != -100)] == [
        lead + "ann</s>",
        lead + "in 1900</s>",
    ]
    end = 0 if is_encoder_decoder else -1
    for prefix in ("", "teacher_"):
        assert (batch[prefix + "labels"][:, end] != -100).all() and batch[prefix + "attention_mask"][:, end].all()
        if not is_encoder_decoder:
            kept = batch[prefix + "labels"] != -100
            assert torch.equal(batch[prefix + "labels"][kept], batch[prefix + "input_ids"][kept])


@pytest.mark.parametrize(
    ("source", "read"),
    [
        ("none", ["Question: who?\nAnswer:", "Question: in which year was it written?\nAnswer:"]),
        ("generated", ["by ann\nQuestion: who?\nAnswer:", "\nQuestion: in which year was it written?\nAnswer:"]),
        (
            "passages",
            [
                "ann wrote it in spring\nbob read it\nQuestion: who?\nAnswer:",
                "1900\nQuestion: in which year was it written?\nAnswer:",
            ],
        ),
    ],
)
@kinds
def test_each_reads_its_own_context_and_generation_reads_what_training_read(
    tiny_tokenizer, is_encoder_decoder, source, read
):
    collator = collator_of(
        tiny_tokenizer, is_encoder_decoder, student=ReaderPrompt(source, 2), teacher=ReaderPrompt(source, 2)
    )
    batch, prompts = collator(RECORDS), collator.generation_inputs(RECORDS)
    assert [tiny_tokenizer.decode(row) for row in rows(prompts["input_ids"], prompts["attention_mask"])] == read
    for name in ("", "teacher_"):
        trained = rows(batch[name + "input_ids"], batch[name + "attention_mask"])
        for row, prompt in zip(trained, rows(prompts["input_ids"], prompts["attention_mask"])):
            assert row[: len(prompt)] == prompt and (len(row) == len(prompt)) == is_encoder_decoder


def test_features_are_stacked_for_training_and_generation(tiny_tokenizer):
    collator = collator_of(tiny_tokenizer)
    expected = torch.tensor([[0.5, 1.0, -1.0], [2.0, 0.0, 3.0]])
    assert torch.equal(collator(RECORDS)["features"], expected)
    assert torch.equal(collator.generation_inputs(RECORDS)["features"], expected)
    bare = collator_of(tiny_tokenizer, needs_features=False)
    assert "features" not in bare(RECORDS) and "features" not in bare.generation_inputs(RECORDS)


def test_without_a_teacher_there_are_no_teacher_inputs(tiny_tokenizer):
    batch = collator_of(tiny_tokenizer, teacher=None, needs_features=False)(RECORDS)
    assert set(batch) == {"input_ids", "attention_mask", "position_ids", "labels"}


def test_truncation_cuts_the_context_and_leaves_question_and_answer(tiny_tokenizer):
    limit = len("\nQuestion: in which year was it written?\nAnswer:") + 3
    batch = collator_of(
        tiny_tokenizer,
        student=ReaderPrompt("compressed", prompt_max_length=limit),
        teacher=ReaderPrompt("passages", 2, prompt_max_length=limit),
    )(RECORDS)
    for name, contexts in (("", ["ann wrote it", "190"]), ("teacher_", ["ann wrote it in spring\nbob r", "190"])):
        read = rows(batch[name + "input_ids"], batch[name + "attention_mask"])
        for row, context, record, answer in zip(read, contexts, RECORDS, ("ann", "in 1900")):
            prompt = f"{context}\nQuestion: {record['question']}\nAnswer:"
            assert tiny_tokenizer.decode(row) == f"{prompt} {answer}</s>" and len(prompt) <= limit
    with pytest.raises(InputError, match="record q2: the question takes 48 tokens with its prompt, max_length is 47"):
        collator_of(tiny_tokenizer, student=ReaderPrompt("generated", prompt_max_length=47))(RECORDS)


def test_long_answers_are_cut(tiny_tokenizer):
    labels = collator_of(tiny_tokenizer, answer_max_length=5)(RECORDS)["labels"]
    assert [tiny_tokenizer.decode(r) for r in rows(labels, labels != -100)] == [" ann</s>", " in 1"]


@kinds
def test_the_end_token_is_trained_and_read_where_it_is_the_padding_too(tiny_tokenizer, is_encoder_decoder):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    shared = collator_of(tokenizer, is_encoder_decoder)(RECORDS)
    apart = collator_of(tiny_tokenizer, is_encoder_decoder)(RECORDS)
    for prefix in ("", "teacher_"):
        assert (shared[prefix + "labels"] == tokenizer.eos_token_id).sum(dim=1).tolist() == [1, 1]
        mask = shared[prefix + "attention_mask"]
        assert torch.equal(mask, apart[prefix + "attention_mask"])
        assert rows(shared[prefix + "input_ids"], mask) == rows(apart[prefix + "input_ids"], mask)


@kinds
def test_lengths_are_rounded_up_to_the_multiple(tiny_tokenizer, is_encoder_decoder):
    collator = collator_of(tiny_tokenizer, is_encoder_decoder, pad_to_multiple_of=16)
    batch = collator(RECORDS)
    assert all(tensor.shape[1] % 16 == 0 for name, tensor in batch.items() if name != "features")
    assert torch.equal(
        batch["labels"][batch["labels"] != -100], batch["teacher_labels"][batch["teacher_labels"] != -100]
    )


def test_braces_in_question_and_context_are_text(tiny_tokenizer):
    record = {**RECORDS[0], "question": "what is {context}?", "generated_context": "{question} {0}"}
    (prompt,) = collator_of(tiny_tokenizer).generation_inputs([record])["input_ids"]
    assert tiny_tokenizer.decode(prompt) == "{question} {0}\nQuestion: what is {context}?\nAnswer:"


def test_workers_give_the_same_batches(tiny_tokenizer):
    collator = collator_of(tiny_tokenizer)
    (batch,) = DataLoader(RECORDS, batch_size=2, collate_fn=collator, num_workers=1)
    assert all(torch.equal(batch[name], tensor) for name, tensor in collator(RECORDS).items())


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"features": None}, {}, "record q2: has no features"),
        ({"features": [1.0]}, {}, "record q2: has 1 features, record q1 has 3"),
        ({"generated_context": None}, {}, "record q2: has no generated_context: run `aag generate`"),
        ({"compressed_context": None}, {"teacher": ReaderPrompt("compressed")}, "record q2: has no compressed_context"),
        ({"ctxs": None}, {}, "record q2: has no ctxs to read: run `aag retrieve`"),
        (
            {},
            {"student": ReaderPrompt("wiki")},
            "context must be one of none, generated, compressed, passages, got 'wiki'",
        ),
    ],
)
def test_what_is_missing_is_named_by_record_and_field(tiny_tokenizer, change, options, message):
    with pytest.raises(InputError, match=message):
        collator_of(tiny_tokenizer, **options)([RECORDS[0], {**RECORDS[1], **change}])


@pytest.mark.parametrize("options", [{"prompt": "Answer:"}, {"context_prompt": "{question} Answer:"}])
def test_a_prompt_that_cannot_be_filled_is_refused_before_any_batch(options):
    (field,) = options
    with pytest.raises(InputError, match=rf"{field} .* needs"):
        ReaderPrompt(**options)


def test_a_tokenizer_without_offsets_is_refused_before_any_batch(tiny_tokenizer):
    class Slow:
        is_fast = False

    with pytest.raises(InputError, match="Slow has no offsets: load the tokenizer with use_fast=True"):
        collator_of(Slow())


def fid_collator_of(tokenizer, **options):
    readers = {"student": ReaderPrompt("passages", fid=True), "teacher": ReaderPrompt("passages", 2, fid=True)}
    return collator_of(tokenizer, is_encoder_decoder=True, **{**readers, **options})


def test_fusion_in_decoder_reads_passages_apart_as_its_own_collator_writes_them(tiny_tokenizer):
    collator = fid_collator_of(tiny_tokenizer, question_mask=True)
    batch, prompts = collator(RECORDS), collator.generation_inputs(RECORDS)
    for prefix, passages in (("", 1), ("teacher_", 2)):
        alone = DataCollatorForFiD(tiny_tokenizer, num_passages=passages)(RECORDS)
        for name in ("input_ids", "attention_mask", "question_mask"):
            assert torch.equal(batch[prefix + name], alone[name]), prefix + name
    # The second record has one passage: the teacher's other one is padding.
    assert batch["teacher_attention_mask"].any(-1).tolist() == [[True, True], [True, False]]
    assert torch.equal(batch["labels"], batch["teacher_labels"])
    assert set(prompts) == {"input_ids", "attention_mask", "features"}
    assert torch.equal(prompts["input_ids"], batch["input_ids"])


def test_a_reader_of_one_context_is_not_a_reader_of_passages(tiny_tokenizer):
    batch = fid_collator_of(tiny_tokenizer, student=ReaderPrompt("generated", 2, fid=True))(RECORDS)
    plain = collator_of(tiny_tokenizer, is_encoder_decoder=True)(RECORDS)
    assert torch.equal(batch["input_ids"], plain["input_ids"]) and batch["teacher_input_ids"].dim() == 3


@pytest.mark.parametrize("fid", [False, True])
@pytest.mark.parametrize("max_length", [60, 256])
def test_the_question_mask_marks_the_same_question_for_student_and_teacher(tiny_tokenizer, fid, max_length):
    """Where the context, cut or not, repeats the question, too."""
    asked = [{**r, "generated_context": r["question"] * 2} for r in RECORDS]
    readers = {
        "student": ReaderPrompt("generated", prompt_max_length=max_length),
        "teacher": ReaderPrompt("passages", 2, fid=fid, prompt_max_length=max_length),
    }
    collator = collator_of(tiny_tokenizer, is_encoder_decoder=True, question_mask=True, **readers)
    batch = collator(asked)
    for prefix in ("", "teacher_"):
        ids, mask = (batch[prefix + name].flatten(0, -2) for name in ("input_ids", "question_mask"))
        assert mask.dtype == torch.bool and mask.shape == ids.shape
        passages = len(ids) // len(asked)
        for i, row in enumerate(rows(ids, mask)):
            assert tiny_tokenizer.decode(row) in (asked[i // passages]["question"], "")
        assert mask.unflatten(0, (len(asked), -1)).any(-1)[:, 0].all()
    assert "question_mask" not in collator_of(tiny_tokenizer, is_encoder_decoder=True)(asked)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"student": ReaderPrompt("passages", fid=True)}, "fid"),
        ({"teacher": ReaderPrompt("passages", fid=True)}, "the teacher's fid"),
        ({"question_mask": True}, "question_mask"),
    ],
)
def test_what_needs_an_encoder_is_refused_for_a_causal_model(tiny_tokenizer, options, named):
    with pytest.raises(InputError, match=f"{named} is for encoder-decoder models: leave it off"):
        collator_of(tiny_tokenizer, **options)


@pytest.mark.parametrize("name", ["passages", "prompt_max_length"])
def test_numbers_below_one_are_refused(name):
    with pytest.raises(InputError, match=f"{name} is 0: it must be at least 1"):
        ReaderPrompt(**{name: 0})


def test_each_reads_in_its_own_words_within_its_own_limit(tiny_tokenizer):
    student = ReaderPrompt("compressed", context_prompt="{context} | {question}", prompt_max_length=40)
    teacher = ReaderPrompt("passages", 2, context_prompt="READ {context} Q {question}", prompt_max_length=400)
    batch = collator_of(tiny_tokenizer, student=student, teacher=teacher)(RECORDS)
    prompts = [tiny_tokenizer.decode(row) for row in rows(batch["teacher_input_ids"], batch["teacher_attention_mask"])]
    assert prompts[0].startswith("READ ann wrote it in spring\nbob read it Q who?")
    assert tiny_tokenizer.decode(rows(batch["input_ids"], batch["attention_mask"])[0]).startswith("ann wrote it")


def test_what_is_cut_is_counted(tiny_tokenizer):
    limit = len("\nQuestion: in which year was it written?\nAnswer:") + 3
    reader = ReaderPrompt("compressed", prompt_max_length=limit)
    collator = collator_of(tiny_tokenizer, student=reader, teacher=None, answer_max_length=5)
    collator(RECORDS)
    assert collator.cut == {"contexts": 1, "answers": 1}
    assert collator.cut.told() == "1 answers lost their end; 1 prompts lost the end of their context"


def test_rows_without_their_columns_say_which_argument_keeps_them(tiny_tokenizer):
    with pytest.raises(InputError, match=r"no question and no answers.*remove_unused_columns=False"):
        collator_of(tiny_tokenizer)([{"features": [1.0]}])


def test_features_that_are_not_finite_are_named_by_record(tiny_tokenizer):
    with pytest.raises(InputError, match="record q2: has NaN or infinity in its features"):
        collator_of(tiny_tokenizer)([RECORDS[0], {**RECORDS[1], "features": [0.0, float("nan"), 1.0]}])
