"""Text that is data is printed and written as it is: it is no markup of the terminal, of Markdown or of HTML."""

import json

import pytest
from rich.console import Console

from aag_hf.cli import ask
from aag_hf.cli.main import main
from aag_hf.cli.output import plain_console
from aag_hf.data import write_records
from aag_hf.evaluation.report import results_markdown, results_table
from aag_hf.fid import FiDT5Config, FiDT5ForConditionalGeneration
from aag_hf.markdown import in_code, in_text

EVIL = "x` | y |\n\n# Heading\n\n<script>alert(1)</script>\r[a](http://b)"
TEXTS = ["a[i] and b[red]", "</p>[/quote]", ":dog:", r"\[bold]", "[link=x]y[/link]", "x" * 300]
ROW = {"exact_match": 1.0, "exact_match_stderr": None, "f1": 1, "best_subspan_em": 1, "input_tokens": 1, "seconds": 1}


@pytest.mark.parametrize("text", TEXTS)
def test_the_terminal_shows_text_as_it_is(text, capsys):
    plain_console().print(text, style="bold")
    assert capsys.readouterr().out == f"{text}\n"


@pytest.mark.parametrize("name", TEXTS[:-1])
def test_the_table_of_results_shows_names_as_they_are(name, capsys):
    Console(width=200).print(results_table([ROW | {"name": name}], title=name))
    assert capsys.readouterr().out.count(name) == 2


@pytest.mark.parametrize("answer", TEXTS)
def test_ask_prints_the_answer_as_it_is(answer, capsys, monkeypatch):
    class Model:
        @classmethod
        def from_pretrained(cls, *_, **__):
            return cls()

        def to(self, _):
            return self

    def pipeline(_):
        result = {"answer": answer, "score": -0.5, "context": answer, "seconds": {"answer": 1.0}}
        return lambda questions, **_: [result for _ in questions]

    monkeypatch.setattr(ask, "AwakeningModel", Model)
    monkeypatch.setattr(ask, "AwakeningPipeline", pipeline)
    assert main(["ask", "--model", "x", "--question", "Where?"]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [answer] and told.err.splitlines()[0] == f"  context from memory: {answer}"


def test_a_file_whose_name_is_markup_is_written_and_told(tmp_path, capsys):
    write_records([{"id": "1", "question": "q", "answers": ["a"]}], tmp_path / "in.jsonl")
    target = tmp_path / "run[/b]" / "nq[dev].jsonl"
    assert main(["data", "--source", f"{tmp_path}/in.jsonl", "--output", str(target)]) == 0
    assert str(target) in capsys.readouterr().out and target.is_file()


def test_markdown_of_data_is_one_line_without_structure():
    assert in_text(EVIL) == r"x\` \| y \| # Heading &lt;script&gt;alert(1)&lt;/script&gt; \[a\](http://b)"
    assert in_code(EVIL).count("`") == 0 and len(in_code(EVIL).splitlines()) == 1
    assert in_text("AAG: HyperLoRA + generated context, a_b") == "AAG: HyperLoRA + generated context, a_b"
    assert len(results_markdown([ROW | {"name": EVIL}]).splitlines()) == 3


def test_names_of_columns_and_files_make_no_heading_in_a_data_card(tmp_path):
    record = {"id": "1", "question": "q", "answers": ["a"], EVIL: 1}
    write_records([record], tmp_path / "in.jsonl")
    assert main(["data", "--source", f"{tmp_path}/in.jsonl", "--output", f"{tmp_path}/out/a`|b.jsonl"]) == 0
    assert main(["publish", "--data", str(tmp_path / "out"), "--repo_id", "me/x"]) == 0
    text = (tmp_path / "out" / "README.md").read_text().partition("\n---\n")[2]
    assert "\n# Heading" not in text and "a`|b" not in text and text.count("\n# ") == 1


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fid") / "model"
    config = FiDT5Config(vocab_size=8, d_model=4, d_kv=2, d_ff=4, num_layers=1, num_heads=1, decoder_start_token_id=0)
    FiDT5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def publish(model, results):
    named = ["--model", str(model), "--repo_id", "me/x"]
    return main(["publish", *named, "--results", str(results), "--dataset", "d"])


def test_names_of_results_make_no_heading_in_a_model_card(model, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps([ROW | {"name": EVIL}]))
    assert publish(model, tmp_path / "results.json") == 0
    card = (model / "README.md").read_text()
    assert "\n# Heading" not in card and "<script>" not in card and "# Heading" in card


@pytest.mark.parametrize(
    "results",
    [
        "null",
        "{}",
        "[]",
        "[1]",
        "not json",
        "[" * 5000,
        json.dumps([ROW]),
        json.dumps([ROW | {"name": "x", "f1": float("nan")}]),
        json.dumps([ROW | {"name": "x", "f1": "1"}]),
        json.dumps([ROW | {"name": 1}]),
    ],
)
def test_what_is_no_file_of_results_is_refused(model, tmp_path, results, capsys):
    (tmp_path / "results.json").write_text(results)
    assert publish(model, tmp_path / "results.json") == 2
    assert "results.json: expected the results.json of `aag evaluate`" in capsys.readouterr().err


@pytest.mark.parametrize("repository", ['me/x")\nimport os  #', "a/b/c", "", "me/x`y", "-x"])
def test_what_is_no_name_of_a_repository_is_refused_before_a_card_is_written(model, tmp_path, repository, capsys):
    (model / "README.md").unlink(missing_ok=True)
    assert main(["publish", "--model", str(model), f"--repo_id={repository}"]) == 2
    assert "expected the name of a repository" in capsys.readouterr().err
    assert not (model / "README.md").exists()


@pytest.mark.parametrize("config", ["{", "[]", '{"model_type": "fid_t5"}'])
def test_a_damaged_configuration_is_named(tmp_path, config, capsys):
    (tmp_path / "config.json").write_text(config)
    assert main(["publish", "--model", str(tmp_path), "--repo_id", "me/x"]) == 2
    assert str(tmp_path) in capsys.readouterr().err and not (tmp_path / "README.md").exists()
