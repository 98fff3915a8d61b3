"""The quickstart at its smallest: every stage, twice the same, nothing redone, and a model that answers."""

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from aag_hf.awakening import AwakeningConfig
from aag_hf.cli.main import main
from aag_hf.data.records import read_records

ROWS = [
    "base model, closed book",
    "static LoRA, closed book",
    "HyperLoRA from the question",
    "  … features shuffled",
    "HyperLoRA from the document",
    "  … from another document",
    "  … from the generated context",
    "static LoRA + generated context in the prompt",
    "static LoRA + document in the prompt",
]


def scores(directory: Path):
    rows = json.loads((directory / "results.json").read_text())
    return [(row["name"], row["exact_match"], [p["prediction"] for p in row["predictions"]]) for row in rows]


def test_the_table_has_every_row_and_every_question(finished):
    rows = json.loads((finished / "results.json").read_text())
    assert [row["name"] for row in rows] == ROWS
    questions = read_records(finished / "data" / "test.jsonl.gz")
    assert {row["count"] for row in rows} == {len(questions)}
    assert (finished / "results.png").stat().st_size > 1000


def test_no_country_stands_in_two_splits(finished):
    splits = ("generator", "train", "dev", "test")
    countries = [{r["entity"] for r in read_records(finished / "data" / f"{split}.jsonl.gz")} for split in splits]
    assert all(countries) and len(set.union(*countries)) == sum(map(len, countries))


def test_readers_learn_from_contexts_about_countries_the_generator_never_saw(finished):
    made_by = json.loads((finished / "generator" / "manifest.json").read_text())
    trained_on = made_by["inputs"]["train_file"]["path"]
    seen = {record["entity"] for record in read_records(trained_on)}
    read = {record["entity"] for record in read_records(finished / "generated" / "train.jsonl.gz")}
    assert seen and read and not seen & read


def test_static_adapters_train_as_much(finished):
    trained = {
        name: AwakeningConfig.from_pretrained(finished / name).trained_parameters
        for name in ("lora_generated", "lora_closed_book", "hyperlora_closed_book")
    }
    assert trained["lora_generated"] == trained["lora_closed_book"]
    assert trained["hyperlora_closed_book"] > 0


@pytest.mark.by_hand
def test_a_second_run_with_the_same_seed_reproduces_it(finished, tmp_path):
    assert main(["quickstart", "--preset", "smoke", "--output_dir", str(tmp_path / "run"), "--threads", "1"]) == 0
    assert scores(tmp_path / "run") == scores(finished)


def test_finished_stages_are_not_redone(finished):
    adapters = sorted(finished.rglob("adapter_model.safetensors"))
    before = [path.stat().st_mtime_ns for path in adapters]
    assert len(adapters) == 8
    assert main(["quickstart", "--preset", "smoke", "--output_dir", str(finished), "--threads", "1"]) == 0
    assert [path.stat().st_mtime_ns for path in adapters] == before


def test_the_folder_of_another_seed_is_refused(finished, capsys):
    assert main(["quickstart", "--preset", "smoke", "--output_dir", str(finished), "--seed", "1"]) == 2
    assert "seed was 17, is 1" in capsys.readouterr().err


def test_the_saved_model_can_be_asked(finished, capsys):
    ask = ["ask", "--model", str(finished / "model"), "--question", "What is the capital of Fiji?"]
    assert main(ask) == 0
    assert main([*ask, "--document", "The capital of Fiji is Suva."]) == 0


def test_the_model_is_measured_with_its_controls_and_gets_a_card(finished, capsys, tmp_path):
    model, test = str(finished / "model"), str(finished / "generated" / "test.jsonl.gz")
    measured = ["--model", model, "--input", test, "--output_dir", str(tmp_path), "--controls", "shuffled"]
    assert main(["evaluate", *measured, "another_document", "added_document", "no_document", "off"]) == 0
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [row["control"] for row in rows] == ["none", "another_document", "added_document", "no_document", "off"]
    arguments = ["--model", model, "--repo_id", "someone/aag", "--dataset", "countries"]
    assert main(["publish", *arguments, "--results", str(tmp_path / "results.json")]) == 0
    card = ModelCard.load(finished / "model" / "README.md")
    assert card.data.library_name == "aag-hf" and card.data.eval_results[0].metric_value == rows[0]["exact_match"]
    assert "| `learning_rate` | `0.001` |" in card.text and "Trained in" in card.text and "train_file" not in card.text
    assert "nothing uploaded" in " ".join(capsys.readouterr().out.split())
