import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import T5Config, T5ForConditionalGeneration

from aag_hf.errors import InputError
from aag_hf.fid import FiDT5ForConditionalGeneration, convert_fid_checkpoint

CONFIG = {
    "model_type": "t5",
    "vocab_size": 50,
    "d_model": 16,
    "d_kv": 4,
    "d_ff": 32,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}


def t5_weights():
    torch.manual_seed(0)
    return T5ForConditionalGeneration(T5Config(**CONFIG)).state_dict()


def original_names(weights):
    """The names FiD's wrappers give: the encoder within an encoder, each of its blocks within a module."""
    wrapped = {re.sub(r"^encoder\.", "encoder.encoder.", key): value for key, value in weights.items()}
    return {re.sub(r"^(encoder\.encoder\.block\.\d+)\.", r"\1.module.", key): v for key, v in wrapped.items()}


def write(folder, weights, binary=True):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    if binary:
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        untied = {
            key: value.clone() for key, value in weights.items() if "embed_tokens" not in key and "lm_" not in key
        }
        save_file(untied, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def assert_holds(model, weights):
    state = model.state_dict()
    for key, value in weights.items():
        torch.testing.assert_close(state[key], value, rtol=0, atol=0, msg=key)


@pytest.mark.parametrize("names", [original_names, dict])
def test_conversion_writes_a_directory_that_loads_the_same_weights(names, tmp_path):
    source = write(tmp_path / "source", names(t5_weights()))
    (source / "spiece.model").write_bytes(b"pieces")
    target = convert_fid_checkpoint(source, tmp_path / "deep" / "target")
    assert not (target / "pytorch_model.bin").exists() and (target / "spiece.model").read_bytes() == b"pieces"
    assert_holds(FiDT5ForConditionalGeneration.from_pretrained(target), t5_weights())
    assert [entry.name for entry in target.parent.iterdir()] == ["target"]


def test_original_names_in_safetensors_load_directly_and_save_under_t5_names(tmp_path):
    source = write(tmp_path / "source", original_names(t5_weights()), binary=False)
    model = FiDT5ForConditionalGeneration.from_pretrained(source)
    assert_holds(model, t5_weights())
    model.save_pretrained(tmp_path / "saved")
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert set(saved) <= set(t5_weights())


@pytest.mark.parametrize("binary", [True, False])
def test_missing_and_unexpected_parameters_are_listed(binary, tmp_path):
    weights = original_names(t5_weights())
    del weights["encoder.encoder.final_layer_norm.weight"]
    weights["decoder.surplus"] = torch.ones(2)
    source = write(tmp_path / "source", weights, binary)
    with pytest.raises(InputError, match=r"missing: encoder.final_layer_norm.weight\n.*unexpected: decoder.surplus"):
        if binary:
            convert_fid_checkpoint(source, tmp_path / "target")
        else:
            FiDT5ForConditionalGeneration.from_pretrained(source)
    assert not (tmp_path / "target").exists()


class Payload:
    pass


def test_a_pickle_with_more_than_tensors_is_refused(tmp_path):
    source = write(tmp_path / "source", {"shared.weight": Payload()})
    with pytest.raises(InputError, match="more than tensors"):
        convert_fid_checkpoint(source, tmp_path / "target")
    (source / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="damaged"):
        convert_fid_checkpoint(source, tmp_path / "target")


def test_conversion_says_which_file_is_in_the_way_or_missing(tmp_path):
    source = write(tmp_path / "source", t5_weights())
    with pytest.raises(InputError, match="exists already"):
        convert_fid_checkpoint(source, source)
    (source / "pytorch_model.bin").unlink()
    with pytest.raises(InputError, match="neither"):
        convert_fid_checkpoint(source, tmp_path / "target")
    (source / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json"):
        convert_fid_checkpoint(source, tmp_path / "target")
