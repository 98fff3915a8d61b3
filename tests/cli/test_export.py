"""An exported adapter is a plain LoRA, and the adapter its question would have got."""

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from aag_hf import AwakeningModel
from aag_hf.cli.export import folder_name
from aag_hf.cli.main import main
from aag_hf.data.records import write_records

RECORDS = [
    {"id": "fiji/1", "question": "What is the capital of Fiji?", "answers": ["Suva"]},
    {"id": "2", "question": "Where is Chad?", "answers": ["Africa"]},
]


@pytest.fixture(scope="module")
def model(finished):
    return AwakeningModel.from_pretrained(finished / "hyperlora_closed_book")


def export(finished, output, *options):
    return main(["export", "--model", str(finished / "hyperlora_closed_book"), "--output_dir", str(output), *options])


def test_ids_name_folders_inside_the_output_and_no_two_alike():
    identifiers = [".", "..", "...", "a/b", "../x", "a" * 300, "a" * 299 + "b", "東" * 60, "東" * 59 + "京", "%2E"]
    names = [folder_name(identifier) for identifier in identifiers]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 200 and "/" not in name and name.strip(".") for name in names)
    assert folder_name("q 1") == "q%201"


def exported_logits(finished, folder, merge):
    """By nothing but PEFT."""
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(finished / "tiny_model"), folder).eval()
    adapted = adapted.merge_and_unload() if merge else adapted
    return adapted(**prompt(finished)).logits


def prompt(finished):
    return AutoTokenizer.from_pretrained(finished / "tiny_model")("Question: what is what?", return_tensors="pt")


@pytest.mark.parametrize("merge", [False, True], ids=["loaded", "merged"])
@torch.no_grad()
def test_plain_peft_gives_the_same_logits(finished, model, tmp_path, merge):
    question = RECORDS[0]["question"]
    assert export(finished, tmp_path / "lora", "--question", question) == 0
    expected = model.reader(**prompt(finished), features=model.encode_features([question])).logits
    torch.testing.assert_close(exported_logits(finished, tmp_path / "lora", merge), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_file_gives_an_adapter_a_question_and_their_mean(finished, model, tmp_path):
    records = tmp_path / "records.jsonl"
    write_records(RECORDS, records)
    assert export(finished, tmp_path / "each", "--input", str(records)) == 0
    assert export(finished, tmp_path / "mean", "--input", str(records), "--mean", "true") == 0
    features = model.encode_features([record["question"] for record in RECORDS])
    folders = {"each/fiji%2F1": features[:1], "each/2": features[1:], "mean": features.mean(0, keepdim=True)}
    for folder, vector in folders.items():
        expected = model.reader(**prompt(finished), features=vector).logits
        torch.testing.assert_close(exported_logits(finished, tmp_path / folder, False), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "name one of question, document and input"),
        (["--question", "Who?", "--input", "records.jsonl"], "name one of question, document and input"),
        (["--question", "Who?", "--mean", "true"], "mean is taken over the questions of input"),
    ],
)
def test_options_that_do_not_fit_are_refused(finished, tmp_path, capsys, options, message):
    assert export(finished, tmp_path / "lora", *options) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "lora").exists()


def test_a_reader_without_a_hypernetwork_is_refused(finished, tmp_path, capsys):
    arguments = ["--model", str(finished / "lora_closed_book"), "--question", "Who?"]
    assert main(["export", *arguments, "--output_dir", str(tmp_path / "lora")]) == 2
    assert "no hypernetwork" in capsys.readouterr().err
