"""A Fusion-in-Decoder teacher and its student in the trainer, with every term of the loss."""

import pytest
import torch

from aag_hf.collators import DataCollatorForContextDistillation, ReaderPrompt
from aag_hf.errors import InputError
from aag_hf.trainers import ContextDistillationConfig, ContextDistillationTrainer

WEIGHTS = {
    "answer_cross_entropy": 0.25,
    "distillation_kl": 0.75,
    "hidden_alignment": 0.5,
    "attention_alignment": 2.0,
}
ALL_TERMS = {"alpha": 0.25, "hidden_weight": 0.5, "attention_weight": 2.0}


@pytest.fixture
def collator(tiny_tokenizer):
    """The student reads one passage, the teacher all."""
    return DataCollatorForContextDistillation(
        tiny_tokenizer,
        is_encoder_decoder=True,
        student=ReaderPrompt("passages", fid=True),
        teacher=ReaderPrompt("passages", 3, fid=True),
        question_mask=True,
        needs_features=True,
    )


@pytest.fixture
def trainer_of(passage_records, options, collator, tiny_tokenizer):
    def trainer_of(model, teacher=None, **changes):
        return ContextDistillationTrainer(
            model,
            ContextDistillationConfig(**{**options, **ALL_TERMS, **changes}),
            teacher_model=teacher,
            train_dataset=passage_records,
            eval_dataset=passage_records,
            data_collator=collator,
            processing_class=tiny_tokenizer,
        )

    return trainer_of


@pytest.fixture
def student(load_fid):
    return load_fid("hyperlora").float()


@pytest.fixture
def teacher(load_fid):
    return load_fid(seed=2).float()


def parameters(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("alignment", ["question", "position"])
def test_with_all_terms_the_loss_falls_and_only_the_hypernetwork_moves(student, teacher, trainer_of, alignment):
    run = {"max_steps": 30, "per_device_train_batch_size": 4, "learning_rate": 5e-3}
    before, taught = parameters(student), parameters(teacher)
    trainer = trainer_of(student, teacher, alignment=alignment, **run)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 30 and losses[-1] < 0.8 * losses[0]
    moved = {name for name, value in parameters(student).items() if not torch.equal(value, before[name])}
    assert moved and all("hypernetworks" in name for name in moved)
    assert moved == {name for name, parameter in student.named_parameters() if parameter.requires_grad}
    assert all(torch.equal(value, taught[name]) for name, value in parameters(teacher).items())


def test_every_term_is_logged_by_its_name_and_they_add_up_to_the_loss(student, teacher, trainer_of):
    trainer = trainer_of(student, teacher, eval_strategy="steps", eval_steps=1)
    trainer.train()
    trained, evaluated = trainer.state.log_history[:2]
    for entry, prefix in ((trained, ""), (evaluated, "eval_")):
        terms = {name: entry[prefix + name] for name in WEIGHTS}
        assert all(value > 0 for value in terms.values())
        total = sum(WEIGHTS[name] * value for name, value in terms.items())
        assert entry[prefix + "loss"] == pytest.approx(total, rel=1e-5)


def test_a_teacher_that_learns_too_gets_better_at_the_answers(student, teacher, trainer_of):
    run = {"max_steps": 30, "per_device_train_batch_size": 4, "learning_rate": 5e-3, "teacher_learning_rate": 5e-3}
    trainer = trainer_of(student, teacher, train_teacher=True, **run)
    trainer.train()
    first, last = (trainer.state.log_history[i] for i in (0, 29))
    for name in ("loss", "answer_cross_entropy", "teacher_cross_entropy"):
        assert last[name] < 0.8 * first[name]


@pytest.mark.parametrize("name", ["hidden", "attention"])
def test_a_term_without_weight_is_not_logged(student, teacher, trainer_of, name):
    trainer = trainer_of(student, teacher, **{f"{name}_weight": 0.0})
    trainer.train()
    logged = {term for term in WEIGHTS if term in trainer.state.log_history[0]}
    assert logged == WEIGHTS.keys() - {f"{name}_alignment"}


def test_without_alignment_the_models_keep_their_fast_attention(student, teacher, trainer_of):
    for model in (student, teacher):
        model.set_attn_implementation("sdpa")
    asked = []
    teacher.register_forward_pre_hook(lambda module, args, kwargs: asked.append(kwargs), with_kwargs=True)
    trainer_of(student, teacher, hidden_weight=0.0, attention_weight=0.0).train()
    assert asked and not any(kwargs.get("output_attentions") or kwargs.get("output_hidden_states") for kwargs in asked)


def test_alignment_alone_needs_no_divergence(student, teacher, trainer_of):
    trainer = trainer_of(student, teacher, alpha=1.0)
    trainer.train()
    entry = trainer.state.log_history[0]
    assert entry["hidden_alignment"] > 0 and "distillation_kl" not in entry


def test_evaluation_generates_from_passages(student, teacher, trainer_of, collator, passage_records, tiny_tokenizer):
    trainer = trainer_of(student, teacher, predict_with_generate=True, generation_max_length=6)
    expected = student.eval().generate(**collator.generation_inputs(passage_records), max_length=6)
    output = trainer.predict(passage_records)
    assert torch.equal(torch.tensor(output.predictions)[:, : expected.shape[1]], expected)
    total = sum(weight * output.metrics[f"test_{name}"] for name, weight in WEIGHTS.items())
    assert output.metrics["test_loss"] == pytest.approx(total, rel=1e-5)


def test_gradient_checkpointing_gives_the_same_step(load_fid, teacher, trainer_of):
    student, checkpointed = (load_fid("hyperlora", init_weights=False).float() for _ in range(2))
    sgd = {"optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0}
    trainer_of(student, teacher, **sgd).train()
    checkpoints = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    trainer_of(checkpointed, teacher, **sgd, **checkpoints).train()
    for name, value in parameters(checkpointed).items():
        torch.testing.assert_close(value, parameters(student)[name], rtol=1e-4, atol=5e-6)


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_attention_that_forms_no_probabilities_is_refused_with_its_cost(student, teacher, trainer_of, role):
    {"student": student, "teacher": teacher}[role].set_attn_implementation("sdpa")
    message = rf"the {role}'s 'sdpa' attention never forms: .*attn_implementation='eager', which is slower and keeps"
    with pytest.raises(InputError, match=message):
        trainer_of(student, teacher)
    trainer_of(student, teacher, attention_weight=0.0).train()


def test_models_without_common_states_are_refused(load, student, teacher, trainer_of, kind):
    other = load()
    if kind.is_encoder_decoder:
        trainer_of(student, other, attention_weight=0.0)
        return
    with pytest.raises(InputError, match="align a causal student with a causal teacher, or both with encoders"):
        trainer_of(student, other, attention_weight=0.0)
    with pytest.raises(InputError, match="'position' compares encoders, and a causal model has none"):
        trainer_of(load("hyperlora"), other, attention_weight=0.0, alignment="position")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alignment": "token"}, "alignment must be one of question, position, got 'token'"),
        ({"layers": "some"}, "layers must be one of all, select, got 'some'"),
        ({"hidden_weight": -1.0}, "hidden_weight must not be negative, got -1.0"),
        ({"attention_weight": float("nan")}, "attention_weight must not be negative, got nan"),
    ],
)
def test_settings_out_of_range_are_refused(options, changes, message):
    with pytest.raises(InputError, match=message):
        ContextDistillationConfig(**{**options, **changes})
