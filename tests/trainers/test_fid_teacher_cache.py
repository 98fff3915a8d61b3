"""The cache of a Fusion-in-Decoder teacher: the same loss, and a key that knows how it reads."""

import copy
from dataclasses import replace

import pytest
import torch

from aag_hf.collators import DataCollatorForContextDistillation, ReaderPrompt
from aag_hf.errors import InputError
from aag_hf.trainers import ContextDistillationConfig, ContextDistillationTrainer, TeacherCache


@pytest.fixture
def collator(tiny_tokenizer):
    return DataCollatorForContextDistillation(
        tiny_tokenizer,
        is_encoder_decoder=True,
        student=ReaderPrompt("passages", fid=True),
        teacher=ReaderPrompt("passages", 3, fid=True),
        needs_features=True,
    )


@pytest.fixture
def teacher(load_fid):
    return load_fid(seed=2).float()


@pytest.fixture
def build(teacher, collator, passage_records, tmp_path):
    def build(collator=collator, records=passage_records):
        options = {"key": {}, "top_k": None, "temperature": 3.0, "batch_size": 3}
        return TeacherCache.build(teacher, collator, records, tmp_path / "cache", **options)

    return build


@pytest.fixture
def trainer_of(load_fid, passage_records, options, collator):
    def trainer_of(teacher=None, cache=None, **changes):
        reading = changed(collator, teacher_cache=cache, question_mask=True)
        arguments = ContextDistillationConfig(**{**options, "max_steps": 3, **changes})
        return ContextDistillationTrainer(
            load_fid("hyperlora").float(),
            arguments,
            teacher_model=teacher,
            train_dataset=passage_records,
            data_collator=reading,
        )

    return trainer_of


def changed(collator, **values):
    collator = copy.copy(collator)
    for name, value in values.items():
        setattr(collator, name, value)
    return collator


def test_a_run_from_the_cache_ends_where_a_run_with_the_teacher_ends(teacher, build, trainer_of):
    """Though the batches that the cache was built from are padded to other numbers of passages."""
    cached, looped = trainer_of(cache=build()), trainer_of(teacher)
    for trainer in (cached, looped):
        trainer.train()
    for name, value in looped.model.named_parameters():
        torch.testing.assert_close(dict(cached.model.named_parameters())[name], value, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("passages", 2, "teacher_passages was 3, is 2"),
        ("fid", False, "teacher_fid was True, is False"),
        ("prompt_max_length", 99, "teacher_prompt_max_length was 256, is 99"),
        ("context", "compressed", "teacher_context was 'passages', is 'compressed'"),
    ],
)
def test_a_teacher_that_reads_otherwise_is_refused_and_the_difference_named(build, collator, name, value, named):
    build()
    with pytest.raises(InputError, match=named):
        build(changed(collator, teacher=replace(collator.teacher, **{name: value})))


def test_how_the_student_reads_does_not_matter(build, collator):
    build()
    student = ReaderPrompt("generated", passages=2, context_prompt="{context} {question}")
    other = changed(collator, student=student, question_mask=True)
    assert build(other).key["teacher_passages"] == 3


@pytest.mark.parametrize("change", [{"title": "new"}, {"text": "new"}])
def test_a_passage_that_changed_under_a_record_s_id_is_refused(build, passage_records, change):
    build()
    passage, *others = passage_records[2]["ctxs"]
    record = {**passage_records[2], "ctxs": [{**passage, **change}, *others]}
    with pytest.raises(InputError, match="record q2: its question, target or context is not what"):
        build(records=[record])
