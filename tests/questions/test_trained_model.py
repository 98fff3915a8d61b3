"""Both encoders read with the base model as it is, also when the model they share is the one that is trained."""

import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from aag_hf import DocumentEncoder, HyperLoraConfig, QuestionEncoder

TEXTS = ["The capital of Nuvaria is Brel.", "Ostmark pays with the ost."]


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_an_adapter_of_the_shared_model_is_off_while_it_encodes(family, tiny_llama_dir, tiny_t5_dir, tiny_tokenizer):
    auto_class, folder, target = {
        "llama": (AutoModelForCausalLM, tiny_llama_dir, "down_proj"),
        "t5": (AutoModelForSeq2SeqLM, tiny_t5_dir, "wo"),
    }[family]
    base = auto_class.from_pretrained(folder)
    documents = DocumentEncoder.from_backbone(base, tiny_tokenizer).fit_statistics(TEXTS)
    questions = QuestionEncoder.from_backbone(base, tiny_tokenizer, feature_dim=4).fit_whitening(TEXTS)
    before = documents.encode(TEXTS).states, questions.encode(TEXTS)
    model = get_peft_model(base, HyperLoraConfig(feature_dim=4, target_modules=[target], init_weights=False))
    assert torch.equal(documents.encode(TEXTS).states, before[0])
    assert torch.equal(questions.encode(TEXTS), before[1])
    features = questions.encode(TEXTS)
    inputs = {"input_ids": torch.tensor([[5, 6, 7], [8, 9, 10]])} | (
        {"decoder_input_ids": torch.tensor([[0], [0]])} if family == "t5" else {}
    )
    with_adapter = model(**inputs, features=features).logits
    with model.disable_adapter():
        assert not torch.allclose(with_adapter, model(**inputs).logits)
