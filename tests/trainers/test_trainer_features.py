"""What every Trainer takes, the reader's takes too: callbacks, metrics of generated answers, `model_init`."""

import pytest
import torch
from transformers import TrainerCallback

from aag_hf import AwakeningConfig, AwakeningModel, QuestionEncoder
from aag_hf.collators import DataCollatorForContextDistillation, ReaderPrompt
from aag_hf.errors import InputError
from aag_hf.evaluation import ReaderMetrics, evaluate_reader
from aag_hf.trainers import ContextDistillationConfig, ContextDistillationTrainer

EVERY_STEP = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "max_steps": 3}


@pytest.fixture
def trainer_of(records, options, kind, tiny_tokenizer):
    def trainer_of(model=None, collator=None, arguments=None, **parts):
        return ContextDistillationTrainer(
            model,
            ContextDistillationConfig(**{**options, **(arguments or {})}),
            train_dataset=records,
            eval_dataset=records,
            data_collator=collator or DataCollatorForContextDistillation(tiny_tokenizer, kind.is_encoder_decoder),
            processing_class=tiny_tokenizer,
            **parts,
        )

    return trainer_of


def test_callbacks_see_the_run_and_each_term_of_the_loss(load, trainer_of, kind, tiny_tokenizer):
    seen, logged = [], []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            seen.append(state.global_step)

        def on_evaluate(self, args, state, control, metrics, **kwargs):
            seen.append(sorted(metrics)[:2])

        def on_log(self, args, state, control, logs, **kwargs):
            logged.append({name for name in logs if name.endswith(("loss", "entropy", "kl", "alignment"))})

    collator = DataCollatorForContextDistillation(
        tiny_tokenizer,
        kind.is_encoder_decoder,
        teacher=ReaderPrompt("compressed"),
        question_mask=kind.is_encoder_decoder,
    )
    arguments = {"max_steps": 1, "eval_strategy": "steps", "alpha": 0.5, "hidden_weight": 1.0}
    trainer_of(load(), collator, arguments, callbacks=[Watch()], teacher_model=load(seed=2)).train()
    assert seen == [1, ["epoch", "eval_answer_cross_entropy"]]
    terms = ["loss", "answer_cross_entropy", "distillation_kl", "hidden_alignment"]
    assert logged == [set(terms), {f"eval_{name}" for name in terms}, {"train_loss"}]


def test_batches_prepared_ahead_by_other_processes_are_the_same(load, trainer_of):
    losses = []
    for workers in (0, 1):
        trainer = trainer_of(load(), arguments={"max_steps": 3, "dataloader_num_workers": workers})
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert len(losses[0]) == 3 and losses[0] == losses[1]


def test_metrics_of_generated_answers_choose_the_best_model(kind, load, records, trainer_of, tiny_tokenizer):
    if not kind.is_encoder_decoder:
        with pytest.raises(InputError, match="give the trainer answer_metrics"):
            trainer_of(load(), compute_metrics=lambda prediction: {})
        return
    seen = []

    def compute_metrics(prediction):
        assert len(prediction.predictions) == len(prediction.label_ids) == len(records)
        labels = torch.tensor(prediction.label_ids).clamp(min=0)
        texts = tiny_tokenizer.batch_decode(labels, skip_special_tokens=True)
        assert texts == [record["answers"][0].strip() for record in records]
        seen.append(len(seen) % 2)
        return {"score": seen[-1]}

    best = {"predict_with_generate": True, "generation_max_length": 6, "metric_for_best_model": "score"}
    best |= {"load_best_model_at_end": True, "greater_is_better": True}
    trainer = trainer_of(load(), compute_metrics=compute_metrics, arguments={**EVERY_STEP, **best})
    trainer.train()
    assert seen == [0, 1, 0] and trainer.state.best_global_step == 2


def test_exact_match_of_generated_answers_chooses_the_best_model(
    kind, load, records, options, trainer_of, tiny_tokenizer
):
    encoder = QuestionEncoder.from_backbone(load().float(), tiny_tokenizer, feature_dim=6)
    encoder.fit_whitening([record["question"] for record in records] + [f"what {i}?" for i in range(6)])
    model = AwakeningModel(AwakeningConfig(answer_max_length=4), load("hyperlora").float(), tiny_tokenizer, encoder)
    with torch.no_grad():
        expected = evaluate_reader(model, records)
    for record, row in zip(records[:3], expected["predictions"]):
        record["answers"] = [row["prediction"] or "nothing", "so it is"]
    before = evaluate_reader(model, records)
    features = model.encode_features([record["question"] for record in records])
    for record, vector in zip(records, features.tolist()):
        record["features"] = vector
    best = {"metric_for_best_model": "exact_match", "load_best_model_at_end": True, "greater_is_better": True}
    trainer = trainer_of(
        model.reader, model.reader_collator(), {**EVERY_STEP, **best}, answer_metrics=ReaderMetrics(model, 4)
    )
    assert trainer.evaluate()["eval_exact_match"] == before["exact_match"]
    trainer.train()
    scores = [e["eval_exact_match"] for e in trainer.state.log_history if "eval_exact_match" in e]
    assert len(scores) == 3 and trainer.state.best_metric == max(scores)
    assert evaluate_reader(model, records)["exact_match"] == max(scores)


def test_models_made_anew_for_each_trial_train_like_one_given(load, trainer_of):
    given, made = trainer_of(load()), trainer_of(model_init=lambda: load())
    untrained = load()
    for trainer in (given, made):
        trainer.train()
    for (name, value), before in zip(given.model.named_parameters(), untrained.parameters()):
        assert torch.equal(made.model.get_parameter(name), value)
        assert not torch.equal(before, value)


@pytest.mark.parametrize(
    "parts", [{"arguments": {"label_smoothing_factor": 0.1}}, {"compute_loss_func": lambda *_, **__: 0.0}]
)
def test_what_would_have_no_part_in_the_loss_is_refused(load, trainer_of, parts):
    with pytest.raises(InputError, match="label_smoothing_factor and compute_loss_func"):
        trainer_of(load(), **parts)
