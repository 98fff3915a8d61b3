"""A hyperparameter search: each trial is a run of its own, and the best one is found."""

import pytest
from transformers import TrainerCallback

from aag_hf import AwakeningConfig, AwakeningModel
from aag_hf.collators import DataCollatorForContextDistillation, DataCollatorForContextGeneration, ReaderPrompt
from aag_hf.errors import InputError
from aag_hf.evaluation import ReaderMetrics, evaluate_reader
from aag_hf.trainers import (
    ContextDistillationConfig,
    ContextDistillationTrainer,
    ContextGeneratorConfig,
    ContextGeneratorTrainer,
)

pytestmark = pytest.mark.parametrize("kind", ["llama"], indirect=True)


@pytest.fixture
def reader_trainer(load, records, options, tiny_tokenizer):
    def reader_trainer(model_init, collator, arguments, **parts):
        return ContextDistillationTrainer(
            model_init=model_init,
            args=ContextDistillationConfig(**{**options, **arguments}),
            train_dataset=records,
            eval_dataset=records,
            data_collator=collator,
            **parts,
        )

    return reader_trainer


@pytest.fixture(params=["reader", "generator"])
def trainer(request, load, records, options, reader_trainer, tiny_tokenizer):
    """A trainer of either stage; the last of its steps is not logged."""
    options |= {"max_steps": 3, "logging_steps": 2}
    if request.param == "reader":
        collator = DataCollatorForContextDistillation(
            tiny_tokenizer, teacher=ReaderPrompt("compressed"), needs_features=True
        )
        return reader_trainer(lambda: load("hyperlora"), collator, {"alpha": 0.5}, teacher_model=load(seed=2))
    return ContextGeneratorTrainer(
        model_init=lambda: load("lora"),
        args=ContextGeneratorConfig(**options),
        train_dataset=records,
        eval_dataset=records,
        data_collator=DataCollatorForContextGeneration(tiny_tokenizer),
    )


def search(trainer, rates, **options):
    """One trial for each learning rate."""

    def space(trial):
        rate = rates[trial.number]
        return {"learning_rate": trial.suggest_float("learning_rate", rate, rate)}

    return trainer.hyperparameter_search(space, n_trials=len(rates), backend="optuna", **options)


class Losses(TrainerCallback):
    """What each run logged of its loss and of the terms of it."""

    def __init__(self):
        self.runs = []

    def on_train_begin(self, args, state, control, **kwargs):
        self.runs.append([])

    def on_log(self, args, state, control, logs, **kwargs):
        self.runs[-1].append({name: value for name, value in logs.items() if name.endswith(("loss", "entropy", "kl"))})


def test_each_trial_trains_a_new_model_to_the_loss_that_the_same_run_has_alone(trainer):
    losses = Losses()
    trainer.add_callback(losses)
    best = search(trainer, [3e-2, 3e-2])
    trainer.args.learning_rate = best.hyperparameters["learning_rate"]
    trainer.train()
    trainer.evaluate()
    first, second, alone = losses.runs
    assert first == second == alone
    logged, _, evaluated = alone
    assert set(evaluated) == {f"eval_{name}" for name in logged}
    assert best.objective == evaluated["eval_loss"] < logged["loss"]


def test_answers_during_training_can_be_the_objective(load, records, tiny_tokenizer, reader_trainer):
    model = AwakeningModel(AwakeningConfig(answer_max_length=4), load("lora"), tiny_tokenizer)
    for record, row in zip(records, evaluate_reader(model, records)["predictions"]):
        record["answers"] = [row["prediction"] or "nothing"]
    untrained = evaluate_reader(model, records)["exact_match"]

    def make_reader():
        model.reader = load("lora")
        return model.reader

    trainer = reader_trainer(
        make_reader, model.reader_collator(), {"max_steps": 2}, answer_metrics=ReaderMetrics(model, 4)
    )
    scores = []

    def objective(metrics):
        scores.append(metrics["eval_exact_match"])
        return scores[-1]

    best = search(trainer, [1.0, 0.0], compute_objective=objective, direction="maximize")
    assert scores[0] < scores[1] == untrained
    assert (best.run_id, best.objective) == ("1", untrained)


def test_a_teacher_that_is_trained_too_is_refused(load, tiny_tokenizer, reader_trainer):
    collator = DataCollatorForContextDistillation(tiny_tokenizer, teacher=ReaderPrompt("compressed"))
    trainer = reader_trainer(lambda: load(), collator, {"train_teacher": True}, teacher_model=load(seed=2))
    with pytest.raises(InputError, match="leave train_teacher off"):
        search(trainer, [1e-3])
