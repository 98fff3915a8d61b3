"""Stage 1: the trainer of the context generator."""

import copy

import pytest
import torch

from aag_hf.collators import DataCollatorForContextGeneration
from aag_hf.errors import InputError
from aag_hf.trainers import ContextGeneratorConfig, ContextGeneratorTrainer

ADAPTERS = ["full", "lora"]


@pytest.fixture
def trainer_of(kind, records, options, tiny_tokenizer):
    def trainer_of(model, **changes):
        arguments = {name: changes.pop(name) for name in ("compute_metrics",) if name in changes}
        return ContextGeneratorTrainer(
            model,
            ContextGeneratorConfig(**{**options, **changes}),
            train_dataset=records,
            eval_dataset=records,
            data_collator=DataCollatorForContextGeneration(tiny_tokenizer, kind.is_encoder_decoder),
            processing_class=tiny_tokenizer,
            **arguments,
        )

    return trainer_of


def parameters(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def plain_loss(model, batch, is_encoder_decoder):
    """The mean over target tokens, from all logits."""
    inputs = dict(batch)
    labels = inputs["labels"]
    if not is_encoder_decoder:
        del inputs["labels"]
    log_probabilities, shift = model(**inputs).logits.log_softmax(-1), int(not is_encoder_decoder)
    terms = [-log_probabilities[r, i - shift, labels[r, i]] for r, i in (labels != -100).nonzero().tolist()]
    return sum(terms) / len(terms)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_loss_is_the_mean_cross_entropy_of_the_context(kind, load, trainer_of, records, adapter):
    model = load(adapter)
    trainer = trainer_of(model)
    batch = trainer.data_collator(records)
    ours, plain = trainer.compute_loss(model, batch), plain_loss(model, batch, kind.is_encoder_decoder)
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=0)
    trained = [p for p in model.parameters() if p.requires_grad]
    for a, b in zip(torch.autograd.grad(ours, trained), torch.autograd.grad(plain, trained), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_only_what_must_train_moves(load, trainer_of, adapter):
    model = load(adapter)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    before = parameters(model)
    trainer_of(model, max_steps=3).train()
    moved = {name for name, value in parameters(model).items() if not torch.equal(value, before[name])}
    assert moved == trained


def test_the_generator_learns_its_contexts(load, trainer_of):
    trainer = trainer_of(load(), max_steps=20, per_device_train_batch_size=6)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.7 * losses[0]


def test_every_target_token_of_a_step_counts_alike_however_batches_are_cut(kind, load, trainer_of, records):
    whole = load()
    model = copy.deepcopy(whole)
    sgd = {"optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0, "train_sampling_strategy": "sequential"}
    trainer = trainer_of(model, gradient_accumulation_steps=2, **sgd)
    loss = plain_loss(whole, trainer.data_collator(records[:4]), kind.is_encoder_decoder)
    lengths = (trainer.data_collator(records[:4])["labels"] != -100).sum(1).tolist()
    assert sum(lengths[:2]) != sum(lengths[2:])
    trained = list(whole.parameters())
    gradients = torch.autograd.grad(loss, trained)
    trainer.train()
    entry = trainer.state.log_history[0]
    assert entry["loss"] == pytest.approx(loss.item(), rel=1e-6)
    assert entry["answer_cross_entropy"] == pytest.approx(loss.item(), rel=1e-6)
    for after, before, gradient in zip(model.parameters(), trained, gradients, strict=True):
        torch.testing.assert_close(after, before - gradient, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("size", [1, 4, 6])
def test_every_target_token_of_an_evaluation_counts_alike_however_batches_are_cut(
    kind, load, trainer_of, records, size
):
    model = load().eval()
    trainer = trainer_of(model, per_device_eval_batch_size=size)
    loss = plain_loss(model, trainer.data_collator(records), kind.is_encoder_decoder)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(loss.item(), rel=1e-6)


@pytest.fixture
def long_and_short(trainer_of):
    """Records of which every other one is much longer, and a trainer of them."""

    def trainer(model, **changes):
        made = trainer_of(model, per_device_train_batch_size=2, per_device_eval_batch_size=2, **changes)
        made.train_dataset = made.eval_dataset = [
            {"id": str(i), "question": "who?" * (1 + 20 * (i % 2)), "answers": ["x"], "compressed_context": f"a{i}"}
            for i in range(64)
        ]
        return made

    return trainer


def test_records_grouped_by_length_meet_others_of_their_length_once_an_epoch(load, long_and_short):
    trainer = long_and_short(load("full"), train_sampling_strategy="group_by_length")
    for loader in (trainer.get_train_dataloader(), trainer.get_eval_dataloader()):
        lengths = [batch["attention_mask"].sum(1).tolist() for batch in loader]
        assert sorted(n > 40 for row in lengths for n in row) == [False] * 32 + [True] * 32
        # Of batches at random about half would be mixed; grouped, at most one in each of the sampler's four groups.
        assert sum((first > 40) != (second > 40) for first, second in lengths) <= 4


def test_rows_are_measured_once_for_all_evaluations(load, long_and_short):
    trainer = long_and_short(load("full"), train_sampling_strategy="group_by_length")
    collate, calls = trainer.data_collator, []
    trainer.data_collator = lambda records: calls.append(len(records)) or collate(records)
    orders = [list(trainer._get_eval_sampler(trainer.eval_dataset)) for _ in range(3)]
    assert len(calls) == 64 and orders[0] == orders[1] == orders[2]


def test_grouping_by_length_leaves_the_evaluation_as_it_is(load, long_and_short):
    model = load("full")
    grouped = long_and_short(model, train_sampling_strategy="group_by_length").evaluate()
    assert grouped["eval_loss"] == pytest.approx(long_and_short(model).evaluate()["eval_loss"], rel=1e-6)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_gradient_checkpointing_gives_the_same_step(load, trainer_of, adapter):
    model = load(adapter)
    checkpointed, before = copy.deepcopy(model), parameters(model)
    sgd = {"optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0}
    trainer_of(model, **sgd).train()
    checkpoints = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    trainer_of(checkpointed, **sgd, **checkpoints).train()
    assert any(getattr(module, "gradient_checkpointing", False) for module in checkpointed.modules())
    assert any(not torch.equal(value, before[name]) for name, value in parameters(model).items())
    for name, value in parameters(checkpointed).items():
        torch.testing.assert_close(value, parameters(model)[name], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_resumed_run_ends_bit_for_bit_where_an_unbroken_one_does(load, trainer_of, options, adapter):
    dropout = {"dropout": 0.3} if adapter == "lora" else {}
    saving = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    unbroken = trainer_of(load(adapter, **dropout), **saving)
    unbroken.train()
    torch.manual_seed(7)
    resumed = trainer_of(load(adapter, seed=5, **dropout), **saving)
    resumed.train(resume_from_checkpoint=f"{options['output_dir']}/checkpoint-2")
    for name, value in parameters(unbroken.model).items():
        assert torch.equal(parameters(resumed.model)[name], value), name
    losses = [[e["loss"] for e in t.state.log_history if "loss" in e] for t in (unbroken, resumed)]
    assert len(losses[0]) == 4 and losses[0] == losses[1]


def test_evaluation_needs_no_metrics_and_predicts_nothing_but_the_loss(kind, load, trainer_of, records):
    model = load()
    trainer = trainer_of(model, per_device_eval_batch_size=6)
    expected = plain_loss(model, trainer.data_collator(records), kind.is_encoder_decoder).item()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-6)
    output = trainer.predict(records)
    assert output.predictions is None and output.metrics["test_loss"] == pytest.approx(expected, rel=1e-6)


def test_metrics_without_generated_answers_are_refused(load, trainer_of):
    with pytest.raises(InputError, match="compute_metrics needs generated answers"):
        trainer_of(load(), compute_metrics=lambda prediction: {})


def test_generation_in_evaluation_never_reads_the_target(kind, load, trainer_of, records, tiny_tokenizer):
    model = load()
    if not kind.is_encoder_decoder:
        with pytest.raises(InputError, match="predict_with_generate would let a causal model read the answers"):
            trainer_of(model, predict_with_generate=True)
        return
    trainer = trainer_of(model, predict_with_generate=True, generation_max_length=6)
    prompts = trainer.data_collator.generation_inputs(records)
    expected = model.eval().generate(**prompts, max_length=6)
    output = trainer.predict(records)
    assert torch.equal(torch.tensor(output.predictions)[:, : expected.shape[1]], expected)
    assert output.metrics["test_loss"] == pytest.approx(trainer.evaluate()["eval_loss"])
