"""A damaged or foreign model is refused by name, whatever its libraries raise, and none of its code runs."""

import json
import shutil

import pytest

from aag_hf.awakening import AwakeningConfig, AwakeningModel
from aag_hf.awakening.loading import load_language_model, load_tokenizer
from aag_hf.errors import InputError, loading
from aag_hf.questions import QuestionEncoder


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tiny_llama_dir):
    """A composed model whose reader is a whole language model."""
    folder = tmp_path_factory.mktemp("composed") / "model"
    base = load_language_model(tiny_llama_dir)
    tokenizer = load_tokenizer(tiny_llama_dir)
    encoder = QuestionEncoder.from_backbone(base, tokenizer, feature_dim=4).fit_whitening(["a b c", "d e f", "g"] * 4)
    AwakeningModel(AwakeningConfig(base_model_name_or_path=tiny_llama_dir), base, tokenizer, encoder).save_pretrained(
        folder
    )
    return folder


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b"[" * 100_000),
        ("config.json", b"[]"),
        ("tokenizer/tokenizer.json", b"{}"),
        ("reader/model.safetensors", b"\0" * 20),
        ("reader/model.safetensors", None),
        ("reader/config.json", b"\xff\xfe"),
        ("reader/adapter_config.json", b"[]"),
        ("question_encoder/config.json", b"[]"),
        ("question_encoder/model.safetensors", b""),
    ],
)
def test_a_damaged_part_is_refused_by_its_folder(saved, tmp_path, file, content):
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    (folder / file).unlink() if content is None else (folder / file).write_bytes(content)
    with pytest.raises(InputError, match=r"does not load|no config\.json") as error:
        AwakeningModel.from_pretrained(folder)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize("load", [load_language_model, load_tokenizer])
def test_code_in_a_models_folder_neither_runs_nor_is_asked_about(tiny_llama_dir, tmp_path, monkeypatch, load):
    folder = tmp_path / "foreign"
    shutil.copytree(tiny_llama_dir, folder)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    for name, auto_map in (
        ("config.json", {"AutoConfig": "evil.Evil"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["evil.Evil", None]}),
    ):
        config = json.loads((folder / name).read_text())
        config |= {"model_type": "evil", "tokenizer_class": "Evil", "auto_map": auto_map}
        (folder / name).write_text(json.dumps(config))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(InputError, match="foreign: does not load"):
        load(str(folder))
    assert not (tmp_path / "ran").exists()


def test_an_error_that_names_its_cause_already_stays():
    with pytest.raises(InputError, match=r"^exactly$"), loading("x"):
        raise InputError("exactly")
