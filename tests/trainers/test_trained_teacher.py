"""A teacher that is trained beside its student: what moves it, what it costs the student, and that it is kept."""

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import TrainerCallback

from aag_hf.awakening import share_weights
from aag_hf.collators import DataCollatorForContextDistillation, ReaderPrompt
from aag_hf.errors import InputError
from aag_hf.trainers import (
    ContextDistillationConfig,
    ContextDistillationTrainer,
    TeacherCache,
    answer_cross_entropy,
    distillation_kl,
)
from aag_hf.trainers.answer_logits import answer_logits

TRAINED = {"train_teacher": True, "alpha": 0.25, "temperature": 2.0}
SGD = {"optim": "sgd", "lr_scheduler_type": "constant", "teacher_learning_rate": 0.5}
teachers = pytest.mark.parametrize("teacher_adapter", ["full", "lora"])


@pytest.fixture
def collator(kind, tiny_tokenizer):
    return DataCollatorForContextDistillation(
        tiny_tokenizer, kind.is_encoder_decoder, teacher=ReaderPrompt("compressed")
    )


@pytest.fixture
def teacher_of(load):
    """A teacher apart from the student's weights."""

    def teacher_of(adapter="full", **options):
        fresh = {"init_lora_weights": False} if adapter == "lora" else {}
        model = load(adapter, seed=11, **fresh, **options)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        return model

    return teacher_of


@pytest.fixture
def trainer_of(records, options, collator):
    def trainer_of(student, teacher=None, collator=collator, **changes):
        return ContextDistillationTrainer(
            student,
            ContextDistillationConfig(**{**options, **TRAINED, **changes}),
            teacher_model=teacher,
            train_dataset=records,
            eval_dataset=records,
            data_collator=collator,
        )

    return trainer_of


def parameters(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def trained(model):
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def moved(model, before):
    return {name for name, value in parameters(model).items() if not torch.equal(value, before[name])}


@teachers
@pytest.mark.parametrize("train_teacher", [True, False])
def test_the_teacher_moves_if_it_is_trained(load, teacher_of, trainer_of, teacher_adapter, train_teacher):
    student, teacher = load("lora"), teacher_of(teacher_adapter)
    wanted = {name for name, parameter in teacher.named_parameters() if parameter.requires_grad}
    before = parameters(teacher)
    trainer_of(student, teacher, max_steps=2, train_teacher=train_teacher).train()
    assert moved(teacher, before) == (wanted if train_teacher else set())


@teachers
def test_each_loss_has_a_gradient_in_its_own_model_only(
    load, teacher_of, trainer_of, records, collator, teacher_adapter
):
    student, teacher = load("lora", init_lora_weights=False), teacher_of(teacher_adapter)
    trainer = trainer_of(student, teacher, teacher_beta=0.3)
    batch = collator(records)
    trainer.compute_loss(student.train(), dict(batch)).backward()
    ours, labels = answer_logits(student, {n: v for n, v in batch.items() if not n.startswith("teacher_")})
    theirs, _ = answer_logits(teacher, collator.teacher_inputs(records))
    expected = {
        student: 0.25 * answer_cross_entropy(ours, labels) + 0.75 * distillation_kl(ours, theirs.detach(), None, 2.0),
        teacher: 0.7 * answer_cross_entropy(theirs, labels) + 0.3 * distillation_kl(ours.detach(), theirs, None, 2.0),
    }
    for model, loss in expected.items():
        for parameter, gradient in zip(trained(model), torch.autograd.grad(loss, trained(model))):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-8, atol=1e-12)


def test_aligned_states_teach_the_student_and_not_the_teacher(load, teacher_of, trainer_of, records, collator):
    with_states, without = teacher_of(), teacher_of()
    without.load_state_dict(with_states.state_dict())
    asked = copy.copy(collator)
    asked.question_mask = collator.is_encoder_decoder
    for teacher, weight in ((with_states, 3.0), (without, 0.0)):
        trainer = trainer_of(load("lora"), teacher, hidden_weight=weight)
        trainer.compute_loss(trainer.model.train(), asked(records)).backward()
    for ours, theirs in zip(trained(with_states), trained(without)):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=0)


def test_the_teacher_has_its_own_learning_rate_and_each_is_clipped_alone(load, teacher_of, trainer_of):
    student, teacher = load("lora"), teacher_of()
    alone = copy.deepcopy(student)
    before = [p.detach().clone() for p in trained(teacher)]
    trainer_of(alone, copy.deepcopy(teacher), **SGD, max_grad_norm=1e-3, train_teacher=False).train()
    trainer_of(student, teacher, **SGD, max_grad_norm=1e-3).train()
    step = torch.cat([(new - old).flatten() for new, old in zip(trained(teacher), before)])
    assert step.norm().item() == pytest.approx(0.5e-3, rel=1e-3)
    for name, value in parameters(student).items():
        torch.testing.assert_close(value, parameters(alone)[name], rtol=1e-10, atol=1e-14, msg=name)


def test_accumulated_batches_make_one_step_free_of_earlier_gradients(load, teacher_of, trainer_of, records):
    for i, record in enumerate(records):
        record["answers"] = [f"a {i}"]
    student, teacher = load("lora"), teacher_of()
    other, other_teacher = copy.deepcopy(student), copy.deepcopy(teacher)
    run = {**SGD, "max_grad_norm": 0.0, "max_steps": 2}
    for parameter in teacher.parameters():
        parameter.grad = torch.ones_like(parameter)
    trainer_of(student, teacher, **run, gradient_accumulation_steps=2).train()
    trainer_of(other, other_teacher, **run, per_device_train_batch_size=4).train()
    for name, value in parameters(other_teacher).items():
        torch.testing.assert_close(parameters(teacher)[name], value, rtol=1e-6, atol=1e-8, msg=name)
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_terms_are_logged_and_evaluation_measures_the_student_alone(load, teacher_of, trainer_of):
    trainer = trainer_of(load("lora"), teacher_of(), eval_strategy="steps", eval_steps=1)
    trainer.train()
    entry, evaluated = trainer.state.log_history[:2]
    student = 0.25 * entry["answer_cross_entropy"] + 0.75 * entry["distillation_kl"]
    teacher = 0.6 * entry["teacher_cross_entropy"] + 0.4 * entry["teacher_distillation_kl"]
    assert entry["loss"] == pytest.approx(student + teacher, rel=1e-5)
    student = 0.25 * evaluated["eval_answer_cross_entropy"] + 0.75 * evaluated["eval_distillation_kl"]
    assert evaluated["eval_loss"] == pytest.approx(student, rel=1e-5) and evaluated["eval_teacher_cross_entropy"] > 0


@pytest.mark.parametrize("training", [True, False])
def test_dropout_of_the_teacher_is_for_training(load, teacher_of, trainer_of, records, training):
    trainer = trainer_of(load("lora"), teacher_of("lora", dropout=0.5))
    model, batch = trainer.model.train(training), trainer.data_collator(records)
    losses = {trainer.compute_loss(model, dict(batch)).item() for _ in range(2)}
    assert len(losses) == 1 + training


@teachers
@pytest.mark.parametrize("student_adapter", ["full", "lora"])
def test_a_resumed_run_ends_bit_for_bit_where_an_unbroken_one_does(
    load, teacher_of, trainer_of, options, student_adapter, teacher_adapter
):
    saving = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    dropout = {"dropout": 0.3} if teacher_adapter == "lora" else {}
    unbroken = trainer_of(load(student_adapter), teacher_of(teacher_adapter, **dropout), **saving)
    resumed = trainer_of(load(student_adapter, seed=5), louder(unbroken.teacher), **saving)
    unbroken.train()
    resumed.train(resume_from_checkpoint=f"{options['output_dir']}/checkpoint-2")
    for role in ("model", "teacher"):
        for name, value in parameters(getattr(unbroken, role)).items():
            assert torch.equal(parameters(getattr(resumed, role))[name], value), f"{role}: {name}"


def louder(model):
    """The same model with other trained weights."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in trained(model):
            parameter.mul_(1.5)
    return model


@teachers
def test_the_teacher_is_saved_beside_the_student(kind, load, teacher_of, trainer_of, tmp_path, teacher_adapter):
    trainer = trainer_of(load("lora"), teacher_of(teacher_adapter))
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    folder = tmp_path / "saved" / "teacher" / "model"
    if teacher_adapter == "full":
        loaded = parameters(kind.auto.from_pretrained(folder, dtype=torch.float64))
    else:
        base = PeftModel.from_pretrained(copy.deepcopy(trainer.teacher).unload(), folder)
        loaded = {name: value for name, value in parameters(base).items() if "lora" in name}
    assert loaded and all(torch.equal(parameters(trainer.teacher)[name], value) for name, value in loaded.items())


def test_the_best_student_comes_back_with_its_teacher(load, teacher_of, trainer_of):
    seen = []

    class Remember(TrainerCallback):
        def on_evaluate(self, args, state, control, metrics, **kwargs):
            seen.append((metrics["eval_teacher_cross_entropy"], parameters(trainer.teacher)))

    saving = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "max_steps": 3}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "teacher_cross_entropy", "greater_is_better": True}
    trainer = trainer_of(load("lora"), teacher_of(), **saving, **best, teacher_learning_rate=1e-2)
    trainer.add_callback(Remember())
    trainer.train()
    first, *later = sorted(seen, key=lambda entry: -entry[0])
    assert first[0] > later[-1][0] and not moved(trainer.teacher, first[1])


def test_a_checkpoint_without_a_teacher_is_refused(load, teacher_of, trainer_of, options):
    saving = {"save_strategy": "steps", "save_steps": 1}
    trainer_of(load("lora"), teacher_of(), **saving, train_teacher=False).train()
    with pytest.raises(InputError, match="teacher/model is missing: the checkpoint was not made with train_teacher"):
        trainer_of(load("lora"), teacher_of()).train(resume_from_checkpoint=f"{options['output_dir']}/checkpoint-1")


def test_a_base_that_the_student_s_adapter_stands_on_is_not_trained(kind, load, trainer_of):
    teacher = load()
    adapter = LoraConfig(task_type=kind.task_type, target_modules=kind.target_modules, r=2)
    student = get_peft_model(share_weights(teacher), adapter)
    with pytest.raises(InputError, match="no parameter of the teacher requires gradients"):
        trainer_of(student, teacher)
    with pytest.raises(InputError, match="the teacher shares weights that the student trains"):
        trainer_of(student, teacher.requires_grad_(True))


def test_what_cannot_be_trained_is_refused(load, teacher_of, trainer_of, collator, records, tmp_path):
    with pytest.raises(InputError, match="train_teacher is set and there is no teacher_model"):
        trainer_of(load("lora"))
    with pytest.raises(InputError, match="no parameter of the teacher requires gradients: load its adapter with"):
        trainer_of(load("lora"), teacher_of().requires_grad_(False))
    cached = copy.copy(collator)
    cached.teacher_cache = TeacherCache.build(
        teacher_of(), collator, records, tmp_path / "cache", key={}, top_k=None, temperature=2.0
    )
    with pytest.raises(InputError, match="a teacher cache is a frozen teacher's: leave train_teacher off"):
        trainer_of(load("lora"), teacher_of(), collator=cached).train()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher_beta": 1.5}, r"teacher_beta must be in \[0, 1\], got 1.5"),
        ({"teacher_learning_rate": -1.0}, "teacher_learning_rate must not be negative, got -1.0"),
    ],
)
def test_settings_out_of_range_are_refused(options, changes, message):
    with pytest.raises(InputError, match=message):
        ContextDistillationConfig(**{**options, **changes})
