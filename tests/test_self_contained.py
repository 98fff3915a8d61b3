"""Saved models with their own code: for strangers without aag-hf, off by default, without a trace in later saves."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from aag_hf import FiDT5ForConditionalGeneration, QuestionEncoder
from aag_hf.errors import InputError
from aag_hf.hub import model_card

QUESTIONS = [f"what is the {noun} of {place}?" for noun in ("capital", "currency") for place in "ABCDEFG"]


@pytest.fixture(scope="module")
def fid(tiny_t5_dir):
    return FiDT5ForConditionalGeneration.from_pretrained(tiny_t5_dir).eval()


@pytest.fixture(scope="module")
def encoder(tiny_llama_dir, tiny_tokenizer):
    base = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    return QuestionEncoder.from_backbone(base, tiny_tokenizer, feature_dim=8).fit_whitening(QUESTIONS)


@pytest.fixture(scope="module")
def folders(fid, encoder, tmp_path_factory):
    directory = tmp_path_factory.mktemp("self_contained")
    fid.save_pretrained(directory / "fid", self_contained=True)
    encoder.save_pretrained(directory / "encoder", self_contained=True)
    return directory


def test_a_stranger_without_the_package_gets_the_same_numbers(fid, encoder, folders, tmp_path):
    script = Path(__file__).with_name("self_contained.py")
    arguments = [folders / "fid", folders / "encoder", QUESTIONS[0]]
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", script, *map(str, arguments)], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    theirs = json.loads(run.stdout.splitlines()[-1])
    passages = torch.tensor([[[5, 9, 17], [5, 9, 11]]])
    with torch.no_grad():
        logits = fid(input_ids=passages, decoder_input_ids=torch.tensor([[0, 5]])).logits
    torch.testing.assert_close(torch.tensor(theirs["fid"]), logits.flatten(), atol=1e-6, rtol=1e-5)
    features = encoder.encode(QUESTIONS[:1]).flatten()
    torch.testing.assert_close(torch.tensor(theirs["encoder"]), features, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["fid", "encoder"])
def test_the_code_is_little_and_needs_nothing_of_the_package(folders, kind):
    files = {path.stem: path.read_text() for path in (folders / kind).glob("*.py")}
    assert {"configuration", "errors"} < set(files) and "cards" not in files and "upload" not in files
    for text in files.values():
        assert not re.search(r"^\s*(from|import) aag_hf", text, flags=re.MULTILINE)
    card = str(model_card(folders / kind, "me/this"))
    assert "custom_code" in card and "trust_remote_code=True" in card and "read them first" in card


def test_it_is_off_by_default_and_leaves_no_trace(fid, folders, tmp_path):
    fid.save_pretrained(tmp_path / "later")
    again = FiDT5ForConditionalGeneration.from_pretrained(folders / "fid")
    again.save_pretrained(tmp_path / "again")
    for folder in (tmp_path / "later", tmp_path / "again"):
        assert not list(folder.glob("*.py")) and "auto_map" not in json.loads((folder / "config.json").read_text())
        assert "trust_remote_code" not in str(model_card(folder, "me/this"))
    assert FiDT5ForConditionalGeneration._auto_class is None


def test_with_the_package_its_own_class_loads_and_no_code_of_the_folder_runs(folders):
    assert type(AutoModelForSeq2SeqLM.from_pretrained(folders / "fid")) is FiDT5ForConditionalGeneration


def test_transformers_own_switch_writes_the_same_files(fid, folders, tmp_path, monkeypatch):
    monkeypatch.setattr(FiDT5ForConditionalGeneration, "_auto_class", None)
    FiDT5ForConditionalGeneration.register_for_auto_class("AutoModelForSeq2SeqLM")
    fid.save_pretrained(tmp_path)
    names = {path.name for path in (folders / "fid").iterdir()}
    assert {path.name for path in tmp_path.iterdir()} == names
    for name in names - {"model.safetensors"}:
        assert (tmp_path / name).read_text() == (folders / "fid" / name).read_text()


def test_what_would_be_uploaded_without_its_code_is_refused(fid, tmp_path):
    with pytest.raises(InputError, match="use aag publish"):
        fid.save_pretrained(tmp_path, self_contained=True, push_to_hub=True)
    assert not list(tmp_path.iterdir())
