import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from aag_hf.fid import FiDT5ForConditionalGeneration

GOLDEN = Path(os.environ.get("AAG_GOLDEN", Path(__file__).resolve().parents[3] / "shared" / "golden"))
FILES = sorted(GOLDEN.glob("fid_t5_*.safetensors"))
CASES = [(file, case) for file in FILES for case in json.loads(file.with_suffix(".json").read_text())["cases"]]

pytestmark = pytest.mark.skipif(not FILES, reason=f"no fid_t5_*.safetensors in {GOLDEN}: set AAG_GOLDEN")


def load(file, folder, attention):
    """The golden weights as the T5 directory that they would be published in."""
    tensors = load_file(file)
    config = json.loads(file.with_suffix(".json").read_text())["config"]
    weights = {key.removeprefix("sd."): value for key, value in tensors.items() if key.startswith("sd.")}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "t5"}))
    return FiDT5ForConditionalGeneration.from_pretrained(folder, attn_implementation=attention), tensors


def case_of(tensors, case):
    return {key.removeprefix(f"{case}."): value for key, value in tensors.items() if key.startswith(f"{case}.")}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("file, case", CASES, ids=lambda value: getattr(value, "stem", value))
def test_logits_loss_and_states_equal_the_reference(file, case, attention, tmp_path):
    model, tensors = load(file, tmp_path, attention)
    expected = case_of(tensors, case)
    outputs = model(
        input_ids=expected["input_ids"],
        attention_mask=expected["attention_mask"],
        labels=expected["labels"],
        output_hidden_states=True,
        output_attentions=attention == "eager",
    )
    torch.testing.assert_close(outputs.logits, expected["logits"], rtol=0, atol=1e-4)
    torch.testing.assert_close(outputs.loss, expected["loss"], rtol=0, atol=1e-5)
    stacks = ["encoder_hidden_states", "decoder_hidden_states"]
    if attention == "eager":
        stacks += ["encoder_attentions", "decoder_attentions", "cross_attentions"]
    for name in stacks:
        torch.testing.assert_close(torch.stack(outputs[name]), expected[name], rtol=0, atol=1e-4)
    last = outputs.encoder_last_hidden_state
    torch.testing.assert_close(last, expected["encoder_last_hidden_state"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("file, case", CASES, ids=lambda value: getattr(value, "stem", value))
def test_greedy_answers_equal_the_reference(file, case, tmp_path):
    model, tensors = load(file, tmp_path, "sdpa")
    expected = case_of(tensors, case)
    inputs = {key: expected[key] for key in ("input_ids", "attention_mask")}
    generated = model.generate(**inputs, max_length=expected["generated"].shape[1], do_sample=False)
    assert generated.tolist() == expected["generated"][:, : generated.shape[1]].tolist()
    forced = model(**inputs, decoder_input_ids=expected["generated"][:, :-1]).logits
    width = min(forced.shape[1], expected["generated_logits"].shape[1])
    torch.testing.assert_close(forced[:, :width], expected["generated_logits"][:, :width], rtol=0, atol=1e-4)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_gradient_norms_equal_the_reference(file, tmp_path):
    facts = json.loads(file.with_suffix(".json").read_text())
    if "main_grad_norms" not in facts:
        pytest.skip(f"{file.stem} carries no gradient norms")
    model, tensors = load(file, tmp_path, "eager")
    expected = case_of(tensors, "main")
    model(**{key: expected[key] for key in ("input_ids", "attention_mask", "labels")}).loss.backward()
    parameters = dict(model.named_parameters())
    for name, norm in facts["main_grad_norms"].items():
        assert abs(parameters[name].grad.norm().item() - norm) < 1e-4 * max(norm, 1), name
