"""The distillation term's temperature over a run, with the teacher in the loop and from its cache."""

import copy

import pytest
import torch

from aag_hf.collators import DataCollatorForContextDistillation, ReaderPrompt
from aag_hf.errors import InputError
from aag_hf.trainers import ContextDistillationConfig, ContextDistillationTrainer, TeacherCache, distillation_kl
from aag_hf.trainers.answer_logits import answer_logits
from aag_hf.trainers.context_distillation.losses import (
    annealed_temperature,
    topk_distillation_kl,
    topk_record,
)

ANNEALED = {"temperature": 3.0, "temperature_schedule": "annealed", "alpha": 0.0}
STEPS = 1200


@pytest.fixture
def collator(kind, tiny_tokenizer):
    return DataCollatorForContextDistillation(
        tiny_tokenizer, kind.is_encoder_decoder, teacher=ReaderPrompt("compressed")
    )


@pytest.fixture
def teacher(load):
    model = load()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture
def trainer_of(load, records, options, collator):
    def trainer_of(teacher=None, cache=None, **changes):
        with_cache = copy.copy(collator)
        with_cache.teacher_cache = cache
        return ContextDistillationTrainer(
            load(),
            ContextDistillationConfig(**{**options, **ANNEALED, **changes}),
            teacher_model=teacher,
            train_dataset=records,
            data_collator=with_cache,
        )

    return trainer_of


def student_batch(collator, records):
    return {name: value for name, value in collator(records).items() if not name.startswith("teacher_")}


def loss_at(trainer, records, step, training=True):
    trainer.state.global_step = step
    return trainer.compute_loss(trainer.model.train(training), trainer.data_collator(records))


@torch.no_grad()
@pytest.mark.parametrize("step", [0, 499, 500, 1234])
def test_training_anneals_the_temperature_and_evaluation_keeps_it(teacher, records, collator, trainer_of, step):
    trainer = trainer_of(teacher)
    ours, _ = answer_logits(trainer.model, student_batch(collator, records))
    theirs, _ = answer_logits(teacher, collator.teacher_inputs(records))
    expected = distillation_kl(ours, theirs, None, annealed_temperature(3.0, step))
    torch.testing.assert_close(loss_at(trainer, records, step), expected)
    evaluated = loss_at(trainer, records, step, training=False)
    torch.testing.assert_close(evaluated, distillation_kl(ours, theirs, None, 3.0))


@pytest.mark.parametrize("steps", [0, 1, 500, 501, STEPS])
def test_a_schedule_names_all_temperatures_it_visits(options, steps):
    arguments = ContextDistillationConfig(**{**options, **ANNEALED})
    visited = {annealed_temperature(3.0, step) for step in range(steps)} | {3.0}
    assert arguments.temperatures(steps) == sorted(visited, reverse=True)
    constant = ContextDistillationConfig(**{**options, "temperature": 3.0})
    assert constant.temperatures(steps) == [3.0] and constant.temperature_at(steps) == 3.0


@torch.no_grad()
@pytest.mark.parametrize("top_k", [None, 5])
def test_a_cache_of_all_temperatures_serves_every_step(teacher, records, collator, trainer_of, tmp_path, top_k):
    temperatures = trainer_of(teacher).args.temperatures(STEPS)
    cache = TeacherCache.build(teacher, collator, records, tmp_path, key={}, top_k=top_k, temperature=temperatures)
    trainer = trainer_of(cache=cache)
    theirs, _ = answer_logits(teacher, collator.teacher_inputs(records))
    ours, _ = answer_logits(trainer.model, student_batch(collator, records))
    for step in (0, 500, STEPS - 1):
        temperature = annealed_temperature(3.0, step)
        if top_k is None:
            expected = distillation_kl(ours, theirs, None, temperature)
        else:
            *top, tail = topk_record(theirs, top_k, [temperature])
            expected = topk_distillation_kl(ours, *top, tail[:, 0], None, temperature)
        torch.testing.assert_close(loss_at(trainer, records, step), expected, rtol=0, atol=1e-6)


def test_a_cache_that_lacks_a_later_temperature_is_refused_before_the_first_step(
    teacher, records, collator, trainer_of, tmp_path
):
    cache = TeacherCache.build(teacher, collator, records, tmp_path, key={}, top_k=5, temperature=3.0)
    trainer_of(cache=cache, max_steps=1).train()
    trainer = trainer_of(cache=cache, max_steps=501)
    with pytest.raises(InputError, match=r"temperature is 1\.77\d*, the teacher cache was made for \[3\.0\]: build"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_an_unknown_schedule_is_refused(options):
    with pytest.raises(InputError, match="temperature_schedule must be one of constant, annealed, got 'linear'"):
        ContextDistillationConfig(**{**options, "temperature_schedule": "linear"})
