"""Stage 2: the trainer of the reader, with and without a teacher."""

import copy

import pytest
import torch

from aag_hf.collators import DataCollatorForContextDistillation, ReaderPrompt
from aag_hf.errors import InputError
from aag_hf.trainers import ContextDistillationConfig, ContextDistillationTrainer

ADAPTERS = ["full", "lora", "hyperlora"]
adapters = pytest.mark.parametrize("adapter", ADAPTERS)


COMPRESSED = ReaderPrompt("compressed")


@pytest.fixture
def collator_of(kind, tiny_tokenizer):
    def collator_of(adapter="hyperlora", teacher=COMPRESSED):
        return DataCollatorForContextDistillation(
            tiny_tokenizer,
            kind.is_encoder_decoder,
            teacher=teacher,
            needs_features=adapter == "hyperlora",
        )

    return collator_of


@pytest.fixture
def trainer_of(records, options, collator_of, tiny_tokenizer):
    def trainer_of(model, teacher=None, adapter="hyperlora", collator=None, **changes):
        return ContextDistillationTrainer(
            model,
            ContextDistillationConfig(**{**options, **changes}),
            teacher_model=teacher,
            train_dataset=records,
            eval_dataset=records,
            data_collator=collator or in_double(collator_of(adapter)),
            processing_class=tiny_tokenizer,
        )

    return trainer_of


def in_double(collator):
    """Features in the models' precision."""

    def collate(rows):
        batch = collator(rows)
        return {name: value.double() if name == "features" else value for name, value in batch.items()}

    return collate


def parameters(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def plain_terms(student, teacher, batch, temperature, is_encoder_decoder):
    """Cross-entropy and T² · KL(teacher ‖ student) meaned over answer tokens, from all logits, token by token."""

    def read(model, prefix):
        names = ("input_ids", "attention_mask", "labels" if is_encoder_decoder else "position_ids")
        inputs = {name: batch[prefix + name] for name in names}
        if not prefix and "features" in batch:
            inputs["features"] = batch["features"]
        logits, labels = model(**inputs).logits, batch[prefix + "labels"]
        shift = int(not is_encoder_decoder)
        return [(logits[r, i - shift], labels[r, i]) for r, i in (labels != -100).nonzero().tolist()]

    entropies, divergences = [], []
    with torch.no_grad():
        taught = read(teacher, "teacher_")
    for (ours, token), (theirs, same) in zip(read(student, ""), taught, strict=True):
        assert token == same
        p, q = (theirs / temperature).softmax(-1), (ours / temperature).softmax(-1)
        entropies.append(-ours.softmax(-1)[token].log())
        divergences.append(temperature**2 * (p * (p / q).log()).sum())
    return torch.stack(entropies).mean(), torch.stack(divergences).mean()


def randomised(load, adapter, seed=1):
    """A student that its adapter has already moved from the base."""
    fresh = {"lora": {"init_lora_weights": False}, "hyperlora": {"init_weights": False}}
    return load(adapter, seed, **fresh.get(adapter, {}))


def teacher_of(load):
    """A teacher apart from the student's base."""
    torch.manual_seed(11)
    teacher = load()
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return teacher


@adapters
@pytest.mark.parametrize(("alpha", "temperature"), [(0.0, 1.0), (0.6, 3.0), (1.0, 3.0)])
def test_loss_equals_the_formula(kind, load, records, trainer_of, adapter, alpha, temperature):
    student, teacher = randomised(load, adapter), teacher_of(load)
    trainer = trainer_of(student, teacher, adapter, alpha=alpha, temperature=temperature)
    batch = trainer.data_collator(records)
    ours = trainer.compute_loss(student, dict(batch))
    entropy, divergence = plain_terms(student, teacher, batch, temperature, kind.is_encoder_decoder)
    plain = alpha * entropy + (1 - alpha) * divergence
    torch.testing.assert_close(ours, plain, rtol=1e-11, atol=1e-12)
    trained = [p for p in student.parameters() if p.requires_grad]
    for a, b in zip(torch.autograd.grad(ours, trained), torch.autograd.grad(plain, trained), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-11)


def test_without_a_teacher_the_loss_is_the_cross_entropy_whatever_alpha_is(kind, load, records, trainer_of):
    student = randomised(load, "hyperlora")
    trainer = trainer_of(student, alpha=0.3)
    batch = trainer.data_collator(records)
    entropy, _ = plain_terms(student, load(), batch, 1.0, kind.is_encoder_decoder)
    torch.testing.assert_close(trainer.compute_loss(student, batch), entropy, rtol=1e-11, atol=1e-12)


@adapters
def test_only_what_must_train_moves_and_the_teacher_never_does(load, trainer_of, adapter):
    student, teacher = load(adapter), teacher_of(load).train()
    trained = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
    before, taught = parameters(student), parameters(teacher)
    trainer_of(student, teacher, adapter, max_steps=3).train()
    assert {name for name, value in parameters(student).items() if not torch.equal(value, before[name])} == trained
    assert all(torch.equal(value, taught[name]) for name, value in parameters(teacher).items())
    assert not teacher.training and not any(parameter.requires_grad for parameter in teacher.parameters())


@pytest.mark.parametrize("adapter", ["lora", "hyperlora"])
def test_distillation_alone_brings_the_student_to_the_teacher(load, trainer_of, adapter):
    run = {"max_steps": 40, "per_device_train_batch_size": 6, "learning_rate": 3e-3}
    trainer = trainer_of(load(adapter), teacher_of(load), adapter, alpha=0.0, temperature=1.0, **run)
    trainer.train()
    divergences = [e["distillation_kl"] for e in trainer.state.log_history if "distillation_kl" in e]
    assert len(divergences) == 40 and divergences[-1] < 0.6 * divergences[0]


def test_logged_terms_add_up_to_the_logged_loss_in_training_and_evaluation(load, trainer_of):
    """Evaluation falls into the logging window of training, and its last batch is smaller: neither blurs the terms."""
    trainer = trainer_of(
        load("hyperlora"),
        teacher_of(load),
        alpha=0.25,
        max_steps=4,
        logging_steps=4,
        eval_strategy="steps",
        eval_steps=1,
    )
    seen, compute_loss = [], trainer.compute_loss

    def record_loss(model, inputs, *args, **kwargs):
        result = compute_loss(model, inputs, *args, **kwargs)
        if model.training:
            seen.append(result.item())
        return result

    trainer.compute_loss = record_loss
    trainer.train()
    trained = [entry for entry in trainer.state.log_history if "loss" in entry]
    evaluated = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(trained) == 1 and len(evaluated) == 4
    assert trained[0]["loss"] == pytest.approx(sum(seen) / 4, rel=1e-5)
    for entry, prefix in [(trained[0], ""), *((entry, "eval_") for entry in evaluated)]:
        names = {name for name in entry if "entropy" in name or "kl" in name}
        assert names == {prefix + "answer_cross_entropy", prefix + "distillation_kl"}
        total = 0.25 * entry[prefix + "answer_cross_entropy"] + 0.75 * entry[prefix + "distillation_kl"]
        assert entry[prefix + "loss"] == pytest.approx(total, rel=1e-5)


def test_terms_of_evaluation_are_returned_and_may_choose_the_best_model(load, trainer_of):
    saving = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "max_steps": 2}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "distillation_kl", "greater_is_better": False}
    trainer = trainer_of(load("hyperlora"), teacher_of(load), **saving, **best)
    trainer.train()
    assert trainer.state.best_metric == min(
        entry["eval_distillation_kl"] for entry in trainer.state.log_history if "eval_loss" in entry
    )
    assert {"test_loss", "test_distillation_kl"} <= set(trainer.predict(trainer.eval_dataset).metrics)
    assert trainer.evaluate()["eval_distillation_kl"] == pytest.approx(trainer.state.best_metric)


def test_terms_of_accumulated_batches_are_averaged_as_the_loss_is(load, trainer_of):
    trainer = trainer_of(load("hyperlora"), teacher_of(load), alpha=0.5, gradient_accumulation_steps=3)
    trainer.train()
    entry = trainer.state.log_history[0]
    assert entry["loss"] == pytest.approx((entry["answer_cross_entropy"] + entry["distillation_kl"]) / 2, rel=1e-5)


@adapters
def test_two_batches_of_two_equal_one_of_four(load, trainer_of, adapter):
    model, teacher = load(adapter), teacher_of(load)
    other = copy.deepcopy(model)
    trainer_of(model, teacher, adapter, gradient_accumulation_steps=2).train()
    trainer_of(other, teacher, adapter, per_device_train_batch_size=4).train()
    for name, value in parameters(other).items():
        torch.testing.assert_close(parameters(model)[name], value, rtol=1e-6, atol=1e-8, msg=name)


@adapters
def test_gradient_checkpointing_gives_the_same_step(load, trainer_of, adapter):
    model, teacher = randomised(load, adapter), teacher_of(load)
    checkpointed, before = copy.deepcopy(model), parameters(model)
    sgd = {"optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0}
    trainer_of(model, teacher, adapter, **sgd).train()
    checkpoints = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    trainer_of(checkpointed, teacher, adapter, **sgd, **checkpoints).train()
    assert any(getattr(module, "gradient_checkpointing", False) for module in checkpointed.modules())
    assert any(not torch.equal(value, before[name]) for name, value in parameters(model).items())
    for name, value in parameters(checkpointed).items():
        torch.testing.assert_close(value, parameters(model)[name], rtol=1e-9, atol=1e-11)


@adapters
def test_a_resumed_run_ends_bit_for_bit_where_an_unbroken_one_does(load, trainer_of, options, adapter):
    dropout = {} if adapter == "full" else {"dropout": 0.3}
    saving = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    unbroken = trainer_of(load(adapter, **dropout), teacher_of(load), adapter, **saving)
    unbroken.train()
    torch.manual_seed(7)
    resumed = trainer_of(load(adapter, seed=5, **dropout), teacher_of(load), adapter, **saving)
    resumed.train(resume_from_checkpoint=f"{options['output_dir']}/checkpoint-2")
    for name, value in parameters(unbroken.model).items():
        assert torch.equal(parameters(resumed.model)[name], value), name
    logged = [[e for e in t.state.log_history if "loss" in e] for t in (unbroken, resumed)]
    assert len(logged[0]) == 4
    for ours, theirs in zip(*logged, strict=True):
        assert all(ours[name] == theirs[name] for name in ("loss", "answer_cross_entropy", "distillation_kl"))


def test_generation_in_evaluation_reads_the_question_and_still_logs_the_terms(
    kind, load, records, collator_of, trainer_of
):
    student = randomised(load, "hyperlora")
    if not kind.is_encoder_decoder:
        with pytest.raises(InputError, match="predict_with_generate would let a causal model read the answers"):
            trainer_of(student, predict_with_generate=True)
        return
    trainer = trainer_of(student, teacher_of(load), alpha=0.25, predict_with_generate=True, generation_max_length=6)
    inputs = collator_of().generation_inputs(records)
    inputs["features"] = inputs["features"].double()
    expected = student.eval().generate(**inputs, max_length=6)
    output = trainer.predict(records)
    assert torch.equal(torch.tensor(output.predictions)[:, : expected.shape[1]], expected)
    total = 0.25 * output.metrics["test_answer_cross_entropy"] + 0.75 * output.metrics["test_distillation_kl"]
    assert output.metrics["test_loss"] == pytest.approx(total, rel=1e-5)


def test_a_batch_without_answers_costs_nothing_and_breaks_nothing(load, records, trainer_of):
    student = randomised(load, "hyperlora")
    trainer = trainer_of(student, teacher_of(load))
    batch = trainer.data_collator(records)
    for name in ("labels", "teacher_labels"):
        batch[name][:] = -100
    loss = trainer.compute_loss(student, batch)
    loss.backward()
    assert loss == 0
    assert not any(p.grad.any() for p in student.parameters() if p.requires_grad and p.grad is not None)


def test_a_teacher_of_another_vocabulary_is_refused(load, trainer_of):
    teacher = load()
    teacher.resize_token_embeddings(300)
    with pytest.raises(InputError, match="the teacher's vocabulary has 300 tokens, the student's 259"):
        trainer_of(load(), teacher, "full")


def test_a_tokenizer_of_another_model_is_refused(load, collator_of, trainer_of):
    student = load()
    student.resize_token_embeddings(200)
    with pytest.raises(InputError, match=r"tokenizer '.*' has 259 tokens and the model has embeddings for 200"):
        trainer_of(student, adapter="full", collator=collator_of("full"))


def test_a_teacher_that_the_student_would_train_is_refused(load, trainer_of):
    student = load()
    with pytest.raises(InputError, match="the teacher shares weights that the student trains"):
        trainer_of(student, student, "full")


def test_a_batch_without_teacher_inputs_is_refused_unless_none_are_needed(load, collator_of, trainer_of):
    collator = in_double(collator_of(teacher=None))
    with pytest.raises(InputError, match="no teacher inputs: give the collator what the `teacher` reads"):
        trainer_of(load("hyperlora"), load(), collator=collator).train()
    trainer_of(load("hyperlora"), load(), collator=collator, alpha=1.0).train()
    trainer_of(load("hyperlora"), collator=collator).train()


def test_a_teacher_that_reads_other_answers_is_refused(load, records, trainer_of):
    student = load("hyperlora")
    trainer = trainer_of(student, load())
    batch = trainer.data_collator(records)
    batch["teacher_labels"] = batch["teacher_labels"].roll(1, dims=0)
    with pytest.raises(InputError, match="end in different answers"):
        trainer.compute_loss(student, batch)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 1.5}, r"alpha must be in \[0, 1\], got 1.5"),
        ({"alpha": -0.1}, r"alpha must be in \[0, 1\], got -0.1"),
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
    ],
)
def test_settings_out_of_range_are_refused(options, changes, message):
    with pytest.raises(InputError, match=message):
        ContextDistillationConfig(**{**options, **changes})
