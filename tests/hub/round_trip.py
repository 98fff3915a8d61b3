"""Pushes every kind of artefact, or loads them and prints what they compute: `round_trip.py push|load base t5`."""

import sys
import tempfile

import torch
from peft import PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from aag_hf import (
    AwakeningConfig,
    AwakeningModel,
    FiDT5ForConditionalGeneration,
    HyperLoraConfig,
    QuestionEncoder,
)
from aag_hf.awakening import share_weights
from aag_hf.cli.publish import PublishOptions, publish

QUESTIONS = [f"what is the {noun} of {place}?" for noun in ("capital", "currency") for place in "ABCDEFG"]
IDS = torch.tensor([[5, 9, 17]])


def push(base_dir: str, t5_dir: str) -> None:
    base, tokenizer = AutoModelForCausalLM.from_pretrained(base_dir), AutoTokenizer.from_pretrained(base_dir)
    torch.manual_seed(1)
    adapter = HyperLoraConfig(task_type="CAUSAL_LM", feature_dim=8, r=2, target_modules=["q_proj"], init_weights=False)
    reader = get_peft_model(share_weights(base), adapter)
    reader.push_to_hub("me/hyperlora")
    FiDT5ForConditionalGeneration.from_pretrained(t5_dir).push_to_hub("me/fid")
    encoder = QuestionEncoder.from_backbone(base, tokenizer, feature_dim=8).fit_whitening(QUESTIONS)
    encoder.push_to_hub("me/encoder")
    base.push_to_hub("me/base")
    model = AwakeningModel(AwakeningConfig("me/base", answer_max_length=5), reader, tokenizer, encoder)
    model.push_to_hub("me/composed")
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        publish(PublishOptions(model=folder, repo_id="me/published", push=True))


@torch.no_grad()
def outputs(base_dir: str) -> None:
    base = AutoModelForCausalLM.from_pretrained(base_dir)
    features = torch.ones(1, 8)
    reader = PeftModel.from_pretrained(share_weights(base), "me/hyperlora").eval()
    print("hyperlora", reader(IDS, features=features).logits.sum().item())
    fid = AutoModelForSeq2SeqLM.from_pretrained("me/fid").eval()
    assert AutoConfig.from_pretrained("me/fid").model_type == fid.config.model_type
    print("fid", fid(input_ids=IDS[None], decoder_input_ids=IDS).logits.sum().item())
    print("encoder", QuestionEncoder.from_pretrained("me/encoder", backbone=base).encode(QUESTIONS).sum().item())
    for name in ("composed", "published"):
        print(name, AwakeningModel.from_pretrained(f"me/{name}").generate(QUESTIONS).answers)


if __name__ == "__main__":
    mode, base_dir, t5_dir = sys.argv[1:]
    if mode == "push":
        push(base_dir, t5_dir)
    outputs(base_dir)
