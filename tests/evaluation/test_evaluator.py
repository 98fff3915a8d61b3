"""Evaluation counts every example once; controls change the features and nothing else."""

import math

import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM

from aag_hf import AwakeningConfig, AwakeningModel, HyperLoraConfig, QuestionEncoder
from aag_hf.errors import InputError
from aag_hf.evaluation import evaluate_reader
from aag_hf.evaluation.contexts import context_report
from aag_hf.evaluation.controls import controlled_features
from aag_hf.evaluation.report import plot_results, results_markdown, results_table
from aag_hf.evaluation.scores import clustered_stderr, score_predictions, summarise

RECORDS = [
    {
        "id": f"{noun}-{place}",
        "question": f"what is the {noun} of {place}?",
        "answers": [place],
        "relation": noun,
        "entity": place,
    }
    for noun in ("capital", "currency")
    for place in "ABCDEFG"
]


@pytest.fixture
def model(tiny_llama_dir, tiny_tokenizer):
    base = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    encoder = QuestionEncoder.from_backbone(base, tiny_tokenizer, feature_dim=8)
    encoder.fit_whitening([record["question"] for record in RECORDS])
    torch.manual_seed(1)
    adapter = HyperLoraConfig(
        task_type="CAUSAL_LM", feature_dim=8, r=2, lora_alpha=64, target_modules="all-linear", init_weights=False
    )
    reader = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_llama_dir), adapter)
    return AwakeningModel(AwakeningConfig(tiny_llama_dir, answer_max_length=4), reader, tiny_tokenizer, encoder).eval()


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_every_example_counts_once_whatever_the_batches(model, batch_size):
    answers = model.generate([record["question"] for record in RECORDS]).answers
    known = [{**record, "answers": [answer or "x"]} for record, answer in zip(RECORDS, answers)]
    half = [record if i % 2 else {**record, "answers": ["never"]} for i, record in enumerate(known)]
    result = evaluate_reader(model, half, batch_size=batch_size)
    expected = score_predictions(half, answers)
    assert result["count"] == len(RECORDS) and [row["id"] for row in result["predictions"]] == [r["id"] for r in half]
    assert result["exact_match"] == pytest.approx(100 * sum(row["exact_match"] for row in expected) / len(RECORDS))


def test_controls_change_predictions_and_off_is_the_base_model(model, tiny_llama_dir, tiny_tokenizer):
    plain = [row["prediction"] for row in evaluate_reader(model, RECORDS)["predictions"]]
    shuffled = [row["prediction"] for row in evaluate_reader(model, RECORDS, control="shuffled")["predictions"]]
    assert plain != shuffled
    off = [row["prediction"] for row in evaluate_reader(model, RECORDS, control="off")["predictions"]]
    base = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    bare = AwakeningModel(AwakeningConfig(tiny_llama_dir, answer_max_length=4), base, tiny_tokenizer)
    assert off == [row["prediction"] for row in evaluate_reader(bare, RECORDS)["predictions"]]
    assert [row["prediction"] for row in evaluate_reader(model, RECORDS)["predictions"]] == plain


@pytest.mark.parametrize("n", [2, 3, 14])
def test_shuffling_gives_every_question_the_features_of_another(n):
    features = torch.arange(n).float().unsqueeze(1)
    shuffled = controlled_features(features, "shuffled")
    assert sorted(shuffled.flatten().tolist()) == features.flatten().tolist()
    assert not (shuffled == features).any()
    assert torch.equal(shuffled, controlled_features(features, "shuffled"))


def test_shuffling_within_relations_stays_within_them():
    relations = ["a", "b"] * 7
    features = torch.arange(14).float().unsqueeze(1)
    shuffled = controlled_features(features, "shuffled_within_relation", relations).flatten().long().tolist()
    assert [i % 2 for i in shuffled] == [i % 2 for i in range(14)]
    assert all(source != i for i, source in enumerate(shuffled))


def test_mean_control_is_the_same_for_all():
    features = torch.randn(5, 3)
    assert torch.equal(controlled_features(features, "mean"), features.mean(0).expand(5, 3))


def test_standard_error_of_independent_observations_is_the_usual_one():
    values = torch.tensor([1.0, 4.0, 2.0, 8.0])
    assert clustered_stderr(values.tolist(), range(4)) == pytest.approx(values.std().item() / 2)


def test_clusters_that_agree_count_once():
    once = clustered_stderr([0.0, 1.0, 1.0], "abc")
    assert clustered_stderr([0.0, 1.0, 1.0] * 5, "abc" * 5) == pytest.approx(once)
    assert math.isnan(clustered_stderr([1.0, 0.0], "aa"))


def test_summary_has_each_relation():
    rows = score_predictions(RECORDS, ["A"] * len(RECORDS))
    summary = summarise(rows)
    assert summary["exact_match"] == pytest.approx(100 / 7)
    assert {name: group["count"] for name, group in summary["by_relation"].items()} == {"capital": 7, "currency": 7}


def test_context_report_counts_answers_and_overlap():
    records = [
        {"answers": ["Suva"], "generated_context": "the capital is Suva", "compressed_context": "the capital is Suva"},
        {"answers": ["Apia"], "generated_context": "a b", "compressed_context": "c d"},
    ]
    assert context_report(records) == {"count": 2.0, "answer_recall": 50.0, "rouge_l": 50.0}


def test_report_shows_every_row(model, tmp_path):
    rows = [{"name": name} | evaluate_reader(model, RECORDS) for name in ("first", "second")]
    plot_results(rows, tmp_path / "results.png", "title")
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["results.png"]
    assert results_table(rows, "title").row_count == 2 and "| second |" in results_markdown(rows)


@pytest.mark.parametrize(
    ("control", "message"),
    [("reversed", "control must be one of"), ("shuffled_within_relation", "needs records with a relation")],
)
def test_controls_that_cannot_be_made_are_named(model, control, message):
    records = [{name: record[name] for name in ("id", "question", "answers")} for record in RECORDS]
    with pytest.raises(InputError, match=message):
        evaluate_reader(model, records, control=control)


def test_a_reader_without_features_has_no_feature_controls(model):
    model.question_encoder = None
    with pytest.raises(InputError, match="needs a reader with a question encoder"):
        evaluate_reader(model, RECORDS, control="mean")


def test_records_without_answers_cannot_be_scored(model):
    with pytest.raises(InputError, match="record q1: has no answers to score by"):
        evaluate_reader(model, [RECORDS[0], {"id": "q1", "question": "q?"}])


def test_no_records_are_refused(model):
    with pytest.raises(InputError, match="no records"):
        evaluate_reader(model, [])
