"""`aag evaluate`: base models as they are, beside saved ones, on several files."""

import json
import shutil
from pathlib import Path

import pytest

from aag_hf import AwakeningConfig, AwakeningModel
from aag_hf.awakening.loading import load_language_model, load_tokenizer
from aag_hf.cli.main import main
from aag_hf.data import load_countries, write_records


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    splits = load_countries()
    for split, name in {"train": "train", "dev": "nq/test", "test": "tqa/test"}.items():
        records = [r | {"generated_context": "from memory"} for r in splits[split][:24]]
        write_records(records, folder / f"{name}.jsonl")
    return folder


@pytest.fixture(scope="module")
def saved(tiny_llama_dir, tmp_path_factory):
    """Two saved readers whose folders are called alike."""
    folder = tmp_path_factory.mktemp("saved")
    config = AwakeningConfig(tiny_llama_dir, answer_max_length=3)
    model = AwakeningModel(config, load_language_model(tiny_llama_dir), load_tokenizer(tiny_llama_dir))
    for name in ("a/reader", "b/reader"):
        model.save_pretrained(folder / name)
    return [str(folder / name) for name in ("a/reader", "b/reader")]


def evaluate(output, *options):
    return main(["evaluate", "--output_dir", str(output), "--answer_max_length", "3", *map(str, options)])


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_a_base_model_is_measured_with_every_context_and_number_of_shots(
    kind, tiny_llama_dir, tiny_t5_dir, files, tmp_path, capsys
):
    path = tiny_llama_dir if kind == "llama" else tiny_t5_dir
    options = ["--model_name_or_path", path, "--input", files / "nq/test.jsonl", "--max_samples", "6"]
    options += [
        "--context",
        "none",
        "generated",
        "passages",
        "--shots",
        "0",
        "2",
        "--shots_file",
        files / "train.jsonl",
    ]
    assert evaluate(tmp_path / "out", *options) == 0
    rows = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [row["name"] for row in rows] == [
        f"{kind}, {told}"
        for context in ("", ", generated", ", passages")
        for told in (f"zero-shot{context}", f"2-shot{context}")
    ]
    assert all(row["count"] == 6 and row["exact_match_stderr"] is not None for row in rows)
    tokens = [row["input_tokens"] for row in rows]
    assert tokens[0] < tokens[1] < tokens[5] and tokens[0] < tokens[2] < tokens[4]
    before = (tmp_path / "out" / "results.json").stat().st_mtime_ns
    assert evaluate(tmp_path / "out", *options) == 0
    assert (tmp_path / "out" / "results.json").stat().st_mtime_ns == before
    assert evaluate(tmp_path / "out", *options, "--prompt_max_length", "999") == 2
    assert "prompt_max_length was 1024, is 999" in capsys.readouterr().err


def test_readers_and_files_that_are_called_alike_have_rows_of_their_own(saved, tiny_llama_dir, files, tmp_path, capsys):
    options = ["--model", *saved, "--model_name_or_path", tiny_llama_dir, "--max_samples", "4"]
    assert evaluate(tmp_path, *options, "--input", files / "nq/test.jsonl", f"other={files}/tqa/test.jsonl") == 0
    rows = json.loads((tmp_path / "results.json").read_text())
    base = tiny_llama_dir.rpartition("/")[2]
    readers = ["a/reader", "b/reader", f"{base}, zero-shot"]
    assert [row["name"] for row in rows] == [f"{r} on {data}" for r in readers for data in ("nq/test.jsonl", "other")]
    printed = capsys.readouterr().out
    assert all(printed.count(name) >= 1 for name in ("a/reader", "b/reader", "other", "exact match"))


def test_two_rows_that_would_have_one_name_are_refused(saved, tiny_llama_dir, files, tmp_path, capsys):
    folder = tmp_path / f"{Path(tiny_llama_dir).name}, zero-shot"
    shutil.copytree(saved[0], folder)
    options = ["--model", folder, "--model_name_or_path", tiny_llama_dir, "--input", files / "nq/test.jsonl"]
    assert evaluate(tmp_path / "out", *options) == 2
    assert f"2 rows of the results would be called '{folder.name}': rename" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_predictions_that_were_deleted_are_said_to_be_missing(saved, files, tmp_path, capsys):
    options = ["--model", saved[0], "--input", files / "nq/test.jsonl", "--max_samples", "2"]
    assert evaluate(tmp_path, *options) == 0
    (tmp_path / "predictions.jsonl").unlink()
    assert evaluate(tmp_path, *options) == 2
    assert f"{tmp_path / 'predictions.jsonl'}: was deleted: pass --overwrite true" in capsys.readouterr().err
    assert evaluate(tmp_path, *options, "--overwrite", "true") == 0
    assert (tmp_path / "predictions.jsonl").exists()


@pytest.mark.parametrize("damaged", ["5", '{"name": "x"}', "[" * 100_000, '["x"]'])
def test_damaged_results_are_refused_by_their_name(saved, files, tmp_path, capsys, damaged):
    options = ["--model", saved[0], "--input", files / "nq/test.jsonl", "--max_samples", "2"]
    assert evaluate(tmp_path, *options) == 0
    results, partial = tmp_path / "results.json", tmp_path / "results.json.partial"
    results.write_text(damaged)
    assert evaluate(tmp_path, *options) == 2
    assert f"aag evaluate: {results}: damaged: delete it to measure again.\n" in capsys.readouterr().err
    results.unlink()
    made_by = json.loads((tmp_path / "results.json.manifest.json").read_text())
    partial.write_text(f"{json.dumps(made_by)}\n{damaged}\n")
    assert evaluate(tmp_path, *options) == 2
    assert f"aag evaluate: {partial}: damaged: delete it to start again.\n" in capsys.readouterr().err
    partial.unlink()
    assert evaluate(tmp_path, *options) == 0


def test_predictions_can_be_read_and_two_rows_compared(saved, tiny_llama_dir, files, tmp_path, capsys):
    options = ["--model", saved[0], "--model_name_or_path", tiny_llama_dir, "--input", files / "nq/test.jsonl"]
    options += ["--context", "generated", "--max_samples", "8"]
    assert evaluate(tmp_path / "two", *options) == 0
    rows = json.loads((tmp_path / "two" / "results.json").read_text(), parse_constant=pytest.fail)
    predictions = [json.loads(line) for line in (tmp_path / "two" / "predictions.jsonl").read_text().splitlines()]
    assert [p["reader"] for p in predictions] == [row["name"] for row in rows for _ in range(8)]
    assert all(p["question"] and p["answers"] and p["prediction"] for p in predictions)
    capsys.readouterr()

    two = str(tmp_path / "two")
    assert main(["compare", two, two, "--rows", *(row["name"] for row in rows)]) == 0
    assert "8 questions" in capsys.readouterr().out
    assert main(["compare", two, two]) == 2
    assert "has 2 rows: choose one of each output with --rows: 'reader'," in capsys.readouterr().err
    assert main(["compare", two, two, "--rows", "reader", "writer"]) == 2
    assert "has no row 'writer': expected one of 'reader'" in capsys.readouterr().err
    assert main(["compare", two]) == 2
    assert "expected two outputs of `aag evaluate`, found 1" in capsys.readouterr().err
    assert main(["compare", str(files / "train.jsonl"), two]) == 2
    assert "train.jsonl, line 1: expected a row of the predictions.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "model is missing"),
        (["--model_name_or_path", "BASE", "--shots", "2"], "name them with shots_file"),
        (["--model_name_or_path", "BASE", "--context", "web"], "context must be one of none, generated"),
        (["--model_name_or_path", "BASE", "--shots", "99", "--shots_file", "TRAIN"], "the shots_file has 24 records"),
        (["--model_name_or_path", "BASE", "--shots", "2", "--shots_file", "INPUT"], "the shots_file has 0 records"),
        (["--model_name_or_path", "BASE", "--context", "compressed"], "has no compressed_context"),
        (["--model_name_or_path", "BASE", "--max_samples", "0"], "max_samples is 0"),
        (
            ["--model_name_or_path", "BASE", "--input", "x=PATTERN", "--match", "regex"],
            "x, record q2: answer '(': not a regular expression",
        ),
        (
            ["--model_name_or_path", "BASE", "--input", "x=ENTITY", "--shots", "1", "--shots_file", "TRAIN"],
            "x, record q1: field 'entity': expected a string or a number",
        ),
        (["--model_name_or_path", "BASE", "--input", "x=INPUT", "x=TRAIN"], "two files are called 'x'"),
        (["--model_name_or_path", "BASE", "--input", "x="], "input is 'x=': names no file"),
        (["--model_name_or_path", "BASE", "--input", "FOLDER"], "is a folder with a file for each split (train)"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_a_model_is_loaded(
    options, message, tiny_llama_dir, files, tmp_path, capsys
):
    asked = [{"id": f"q{i}", "question": "q?", "answers": ["a"]} for i in (1, 2)]
    write_records([asked[0], asked[1] | {"answers": ["("]}], tmp_path / "pattern.jsonl")
    write_records([asked[0] | {"entity": {"a": 1}}], tmp_path / "entity.jsonl")
    places = {"FOLDER": files, "PATTERN": tmp_path / "pattern.jsonl", "ENTITY": tmp_path / "entity.jsonl"}
    places |= {"BASE": tiny_llama_dir, "TRAIN": files / "train.jsonl", "INPUT": files / "nq/test.jsonl"}
    for place, path in places.items():
        options = [option.replace(place, str(path)) for option in options]
    assert evaluate(tmp_path / "out", "--input", files / "nq/test.jsonl", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "results.json").exists()


def test_drafts_name_the_row_and_go_into_the_manifest(saved, files, tmp_path, capsys):
    options = ["--model", saved[0], "--input", files / "nq/test.jsonl", "--max_samples", "6"]
    assert evaluate(tmp_path / "out", *options, "--num_answers", "3") == 0
    (row,) = json.loads((tmp_path / "out" / "results.json").read_text())
    assert row["name"] == "reader, vote of 3 answers" and row["calibration_error"] >= 0
    assert evaluate(tmp_path / "out", *options, "--num_answers", "4") == 2
    assert "num_answers was 3, is 4" in capsys.readouterr().err
    assert evaluate(tmp_path / "other", *options, "--num_contexts", "2") == 2
    assert "set num_answers instead of num_contexts" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_files_that_no_evaluation_made_are_not_replaced(saved, files, tmp_path, capsys):
    mine = tmp_path / "predictions.jsonl"
    mine.write_text((files / "nq/test.jsonl").read_text())
    options = ["--model", saved[0], "--max_samples", "2"]
    assert evaluate(tmp_path, *options, "--input", files / "nq/test.jsonl") == 2
    assert "predictions.jsonl: exists, and no results.json tells what made it" in capsys.readouterr().err
    assert evaluate(tmp_path, *options, "--input", mine, "--overwrite", "true") == 2
    assert "would replace" in capsys.readouterr().err
    assert mine.read_text() == (files / "nq/test.jsonl").read_text()
    assert evaluate(tmp_path, *options, "--input", files / "nq/test.jsonl", "--overwrite", "true") == 0
