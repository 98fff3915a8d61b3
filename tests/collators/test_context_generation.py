"""Batches for the context generator."""

import copy

import pytest
import torch
from torch.utils.data import DataLoader

from aag_hf.collators import DataCollatorForContextGeneration
from aag_hf.errors import InputError

RECORDS = [
    {"id": "q1", "question": "who?", "answers": ["ann"], "compressed_context": "ann wrote it"},
    {"id": "q2", "question": "in which year was it?", "answers": ["1900"], "compressed_context": "1900"},
]
kinds = pytest.mark.parametrize("is_encoder_decoder", [False, True])


def rows(tensor, mask):
    return [row[keep.bool()].tolist() for row, keep in zip(tensor, mask)]


def test_causal_rows_read_prompt_then_context_and_train_the_context_only(tiny_tokenizer):
    batch = DataCollatorForContextGeneration(tiny_tokenizer)(RECORDS)
    for record, ids, labels in zip(RECORDS, rows(batch["input_ids"], batch["attention_mask"]), batch["labels"]):
        target = " " + record["compressed_context"] + "</s>"
        assert tiny_tokenizer.decode(ids) == f"Question: {record['question']}\nContext:{target}"
        assert tiny_tokenizer.decode(labels[labels != -100]) == target
    kept = batch["labels"] != -100
    assert kept[:, -1].all() and torch.equal(batch["labels"][kept], batch["input_ids"][kept])
    assert batch["position_ids"][1, -1] == batch["attention_mask"][1].sum() - 1


def test_encoder_reads_the_prompt_and_decoder_writes_the_context(tiny_tokenizer):
    batch = DataCollatorForContextGeneration(tiny_tokenizer, is_encoder_decoder=True)(RECORDS)
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    for record, ids, labels in zip(RECORDS, rows(batch["input_ids"], batch["attention_mask"]), batch["labels"]):
        assert tiny_tokenizer.decode(ids) == f"Question: {record['question']}\nContext:"
        assert tiny_tokenizer.decode(labels[labels != -100]) == record["compressed_context"] + "</s>"
    assert batch["attention_mask"][:, 0].all() and (batch["labels"][:, 0] != -100).all()


@kinds
def test_the_end_token_is_trained_and_read_where_it_is_the_padding_too(tiny_tokenizer, is_encoder_decoder):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    shared = DataCollatorForContextGeneration(tokenizer, is_encoder_decoder)(RECORDS)
    apart = DataCollatorForContextGeneration(tiny_tokenizer, is_encoder_decoder)(RECORDS)
    assert (shared["labels"] == tokenizer.eos_token_id).sum(dim=1).tolist() == [1, 1]
    assert all(torch.equal(shared[name], apart[name]) for name in shared if name != "input_ids")
    assert rows(shared["input_ids"], shared["attention_mask"]) == rows(apart["input_ids"], apart["attention_mask"])


@kinds
def test_generation_reads_exactly_what_training_read_before_the_target(tiny_tokenizer, is_encoder_decoder):
    collator = DataCollatorForContextGeneration(tiny_tokenizer, is_encoder_decoder)
    trained, prompts = collator(RECORDS), collator.generation_inputs(RECORDS)
    assert set(prompts) == {"input_ids", "attention_mask"}
    assert prompts["attention_mask"][:, 0 if is_encoder_decoder else -1].all()
    for row, prompt in zip(
        rows(trained["input_ids"], trained["attention_mask"]), rows(prompts["input_ids"], prompts["attention_mask"])
    ):
        assert row[: len(prompt)] == prompt and (len(row) == len(prompt)) == is_encoder_decoder


def test_long_targets_are_cut_and_long_questions_refused(tiny_tokenizer):
    cut = DataCollatorForContextGeneration(tiny_tokenizer, target_max_length=5)(RECORDS)["labels"]
    assert [tiny_tokenizer.decode(row[row != -100]) for row in cut] == [" ann ", " 1900"]
    with pytest.raises(InputError, match="record q2: the question takes 40 tokens"):
        DataCollatorForContextGeneration(tiny_tokenizer, max_length=39)(RECORDS)


@kinds
def test_lengths_are_rounded_up_to_the_multiple(tiny_tokenizer, is_encoder_decoder):
    collator = DataCollatorForContextGeneration(tiny_tokenizer, is_encoder_decoder, pad_to_multiple_of=16)
    plain = DataCollatorForContextGeneration(tiny_tokenizer, is_encoder_decoder)(RECORDS)
    batch = collator(RECORDS)
    assert all(t.shape[1] % 16 == 0 for t in (*batch.values(), *collator.generation_inputs(RECORDS).values()))
    for name in ("input_ids", "labels"):
        mask, fewer = (b["attention_mask"] if name == "input_ids" else b["labels"] != -100 for b in (batch, plain))
        assert rows(batch[name], mask) == rows(plain[name], fewer)


def test_workers_give_the_same_batches(tiny_tokenizer):
    collator = DataCollatorForContextGeneration(tiny_tokenizer)
    (batch,) = DataLoader(RECORDS, batch_size=2, collate_fn=collator, num_workers=1)
    assert all(torch.equal(batch[name], tensor) for name, tensor in collator(RECORDS).items())


def test_a_record_without_compressed_context_is_named(tiny_tokenizer):
    bare = {"id": "q7", "question": "why?", "answers": ["so"]}
    collator = DataCollatorForContextGeneration(tiny_tokenizer)
    with pytest.raises(InputError, match="record q7: has no compressed_context: run `aag compress`"):
        collator([*RECORDS, bare])
    assert len(collator.generation_inputs([bare])["input_ids"]) == 1


def test_answers_are_not_asked_for_and_a_question_is(tiny_tokenizer):
    collator = DataCollatorForContextGeneration(tiny_tokenizer)
    bare = [{name: record[name] for name in ("id", "question", "compressed_context")} for record in RECORDS]
    assert all(torch.equal(collator(bare)[name], tensor) for name, tensor in collator(RECORDS).items())
    with pytest.raises(InputError, match=r"a record has no question, only id: .*remove_unused_columns=False"):
        collator([{"id": "q1"}])


def test_a_prompt_that_cannot_be_filled_is_refused_before_any_batch(tiny_tokenizer):
    with pytest.raises(InputError, match="prompt 'Context:' needs"):
        DataCollatorForContextGeneration(tiny_tokenizer, prompt="Context:")
