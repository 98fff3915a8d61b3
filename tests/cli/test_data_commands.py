import json
import subprocess
import sys

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from aag_hf.cli.main import main
from aag_hf.data import read_records, write_records
from aag_hf.data.jsonl import write_rows

PASSAGES = [
    {"title": "Oslo", "text": "Oslo is the capital of Norway."},
    {"title": "Bern", "text": "Bern is the seat of the Swiss government."},
]
RECORDS = [
    {"id": "q1", "question": "What is the capital of Norway?", "answers": ["Oslo"]},
    {"id": "q2", "question": "Where is the Swiss government?", "answers": ["Bern"]},
]


@pytest.fixture
def folder(tmp_path):
    write_records(RECORDS, tmp_path / "questions.jsonl")
    write_rows(PASSAGES, tmp_path / "passages.jsonl")
    return tmp_path


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(directory)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


def test_data_converts_a_file(tmp_path, capsys):
    (tmp_path / "open.jsonl").write_text(json.dumps({"question": "q", "answer": ["a"]}) + "\n")
    assert main(["data", "--source", f"{tmp_path}/open.jsonl", "--output", f"{tmp_path}/out.jsonl.gz"]) == 0
    assert read_records(tmp_path / "out.jsonl.gz") == [{"id": "open-0", "question": "q", "answers": ["a"]}]
    assert "1 rows in" in capsys.readouterr().out


def test_data_writes_the_splits_of_countries(tmp_path):
    countries = pytest.importorskip("aag_hf.data.countries")
    pytest.importorskip("countryinfo", reason="needs the quickstart extra: countryinfo")
    assert main(["data", "--source", "countries", "--output", str(tmp_path), "--seed", "3"]) == 0
    assert read_records(tmp_path, split="test") == countries.load_countries(3)["test"]
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.endswith(".manifest.json")) == [
        "README.md",
        "dev.jsonl.gz",
        "documents.jsonl",
        "test.jsonl.gz",
        "train.jsonl.gz",
    ]


def test_retrieve_then_compress_fill_in_the_record(folder, model_directory, capsys):
    pool, found, out = folder / "passages.jsonl", folder / "found.jsonl", folder / "compressed.jsonl"
    arguments = ["retrieve", "--input", f"{folder}/questions.jsonl", "--pool", str(pool), str(pool)]
    assert main([*arguments, "--output", str(found), "--top_k", "2"]) == 0
    assert "recall@1 100.0%" in capsys.readouterr().out
    records = read_records(found)
    assert [record["ctxs"][0]["title"] for record in records] == ["Oslo", "Bern"]
    assert all(record["ctxs"][0]["has_answer"] for record in records)

    arguments = ["compress", "--input", str(found), "--output", str(out), "--target_tokens", "20"]
    arguments += ["--model_name_or_path", str(model_directory), "--dtype", "float32"]
    assert main(arguments) == 0
    assert "2 questions" in capsys.readouterr().out
    texts = {passage["text"] for passage in PASSAGES}
    assert all(record["compressed_context"] in texts for record in read_records(out))
    assert main([*arguments[:-1], "bfloat16"]) == 2
    assert "dtype was 'float32', is 'bfloat16'" in capsys.readouterr().err


def test_a_pool_that_is_indexed_once_is_searched_as_one_that_is_given(folder, capsys):
    write_records([*RECORDS, {"id": "q3", "question": "zzz?", "answers": ["x"]}], folder / "questions.jsonl")
    search = ["retrieve", "--input", f"{folder}/questions.jsonl", "--top_k", "2"]
    pool = ["--pool", f"{folder}/passages.jsonl"]
    assert main(["index", *pool, "--output", f"{folder}/index"]) == 0
    assert "2 passages" in capsys.readouterr().out
    assert main([*search, "--index", f"{folder}/index", "--output", f"{folder}/a.jsonl"]) == 0
    assert "recall@1 66.7%" in capsys.readouterr().out
    assert main([*search, *pool, "--output", f"{folder}/b.jsonl"]) == 0
    assert (folder / "a.jsonl").read_bytes() == (folder / "b.jsonl").read_bytes()
    assert [passage["score"] for passage in read_records(folder / "a.jsonl")[2]["ctxs"]] == [0.0, 0.0]
    # Made anew of the same it is the same to whoever searched it.
    assert main(["index", *pool, "--output", f"{folder}/index", "--overwrite", "true"]) == 0
    capsys.readouterr()
    assert main([*search, "--index", f"{folder}/index", "--output", f"{folder}/a.jsonl"]) == 0
    assert "finished before" in capsys.readouterr().err
    for wrong, said in (([], "give either pool"), (["--index", str(folder)], "holds no index")):
        assert main([*search, *wrong, "--output", f"{folder}/c.jsonl"]) == 2
        assert said in capsys.readouterr().err


def test_bad_input_is_one_line_and_writes_nothing(folder, model_directory, capsys):
    out = ["--output", f"{folder}/out.jsonl"]
    question_file = ["--input", f"{folder}/questions.jsonl"]
    model = ["--model_name_or_path", str(model_directory)]
    passage_file = ["--input", f"{folder}/found.jsonl"]
    write_records([record | {"ctxs": PASSAGES} for record in RECORDS], folder / "found.jsonl")
    before = sorted(folder.iterdir())
    for arguments, expected in [
        (["data", "--source", f"{folder}/none.jsonl", *out], "none.jsonl: no such file"),
        (["retrieve", *question_file, "--pool", f"{folder}/none.jsonl", *out], "no such file"),
        (["retrieve", *question_file, "--pool", f"{folder}/passages.jsonl", *out, "--top_k", "0"], "top_k is 0"),
        (["compress", *question_file, *out, "--dtype", "int8"], "got 'int8'"),
        (["compress", *question_file, *out, *model], "record 'q1': field 'ctxs'"),
        (["compress", *passage_file, *out, "--model_name_or_path", str(folder)], "does not load"),
    ]:
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert f"aag {arguments[0]}: " in error and expected in error
        assert "Traceback" not in error and sorted(folder.iterdir()) == before


@pytest.mark.parametrize("command", ["data", "retrieve", "compress"])
def test_each_command_explains_its_options(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert "--output" in capsys.readouterr().out


def test_a_command_runs_as_a_module():
    run = subprocess.run([sys.executable, "-m", "aag_hf.cli.data", "--help"], capture_output=True, text=True)
    assert run.returncode == 0 and "--output" in run.stdout


def test_commands_that_run_no_model_do_not_wait_for_torch(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"id": "1", "question": "who?", "answers": ["me"]}\n')
    program = (
        "import sys; from aag_hf.cli import compare, index, publish; from aag_hf.cli.main import main; "
        "status = main(['data', '--source', 'in.jsonl', '--output', 'out.jsonl']); "
        "print(status, {'torch', 'peft', 'transformers'} & sys.modules.keys())"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert run.stdout.splitlines()[-1] == "0 set()"


def test_importing_the_data_package_stays_light():
    heavy = "{'tantivy', 'llmlingua', 'countryinfo'}"
    code = f"import sys, aag_hf.data, aag_hf.data.records; print({heavy} & sys.modules.keys())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
