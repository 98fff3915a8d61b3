"""Logits at the answer tokens are slices of all logits, computed or not."""

import copy
import inspect

import pytest
import torch
from peft import get_peft_model
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BartForConditionalGeneration,
    TrOCRConfig,
    TrOCRForCausalLM,
)

from aag_hf import HyperLoraConfig
from aag_hf.collators import DataCollatorForContextDistillation
from aag_hf.errors import InputError
from aag_hf.trainers.answer_logits import answer_logits


class Wrapped(nn.Module):
    """As distributed training wraps."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, **inputs):
        return self.module(**inputs)


def sliced(model, inputs, is_encoder_decoder):
    """The definition: all logits, picked token by token."""
    inputs = dict(inputs)
    labels = inputs["labels"]
    if not is_encoder_decoder:
        del inputs["labels"]
    logits, shift = model(**inputs).logits, int(not is_encoder_decoder)
    places = [(row, i) for row, i in (labels != -100).nonzero().tolist() if i >= shift]
    rows = [logits[row, i - shift] for row, i in places]
    return torch.stack(rows), torch.tensor([labels[row, i] for row, i in places])


def assert_sliced(model, inputs, is_encoder_decoder):
    for ours, theirs in zip(answer_logits(model, inputs), sliced(model, inputs, is_encoder_decoder), strict=True):
        torch.testing.assert_close(ours, theirs)


def ragged_batch():
    """Answers that start and end at different places, one of them at the first token."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 200, (4, 9), generator=generator)
    labels = torch.full_like(ids, -100)
    for row, (start, end) in enumerate([(6, 9), (0, 4), (3, 5), (8, 9)]):
        labels[row, start:end] = ids[row, start:end]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


@pytest.mark.parametrize("adapter", ["full", "lora", "hyperlora"])
@torch.no_grad()
def test_answer_logits_are_a_slice_of_all_logits(kind, load, records, tiny_tokenizer, adapter):
    hyperlora = {"needs_features": adapter == "hyperlora"}
    batch = DataCollatorForContextDistillation(tiny_tokenizer, kind.is_encoder_decoder, **hyperlora)(records)
    batch = {name: value.double() if name == "features" else value for name, value in batch.items()}
    model = load(adapter).eval()
    assert_sliced(model, batch, kind.is_encoder_decoder)
    assert_sliced(Wrapped(model), batch, kind.is_encoder_decoder)


@torch.no_grad()
def test_answers_may_stand_anywhere(kind, load):
    assert_sliced(load().eval(), ragged_batch(), kind.is_encoder_decoder)


@torch.no_grad()
def test_models_that_cannot_leave_logits_out_give_the_same():
    torch.manual_seed(0)
    sizes = {"vocab_size": 256, "d_model": 16, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 16}
    model = TrOCRForCausalLM(TrOCRConfig(**sizes)).double().eval()
    assert "logits_to_keep" not in inspect.signature(model.forward).parameters
    assert_sliced(model, ragged_batch(), is_encoder_decoder=False)


@pytest.mark.parametrize("answers", ["some", "none"])
def test_inputs_are_left_as_they_were_and_an_empty_batch_has_no_gradient(kind, load, answers):
    model, batch = load(), ragged_batch()
    if answers == "none":
        batch["labels"][:] = -100
    before = copy.deepcopy(batch)
    logits, labels = answer_logits(model, batch)
    assert all(torch.equal(batch[name], before[name]) for name in before) and len(batch) == len(before)
    logits.sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)
    if answers == "none":
        assert logits.shape == (0, model.config.vocab_size) and labels.shape == (0,)
        assert not any(gradient.any() for gradient in gradients)


@torch.no_grad()
def test_a_causal_model_projects_the_answer_tokens_only(tiny_llama_dir):
    model, seen = AutoModelForCausalLM.from_pretrained(tiny_llama_dir), []
    model.lm_head.register_forward_hook(lambda module, args, output: seen.append(tuple(output.shape)))
    batch = ragged_batch()
    logits, _ = answer_logits(model, batch)
    assert seen == [tuple(logits.shape)]
    model(input_ids=batch["input_ids"])
    assert seen[1][:2] == batch["input_ids"].shape


def test_a_head_with_adapters_gives_each_row_those_of_its_own_question(tiny_llama_dir):
    base = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    config = HyperLoraConfig(feature_dim=6, r=2, target_modules=["lm_head"], init_weights=False)
    model = get_peft_model(base, config).double()
    features = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert_sliced(model, {**ragged_batch(), "features": features}, is_encoder_decoder=False)


def test_rows_longer_than_the_model_are_refused(tiny_llama_dir):
    model = AutoModelForCausalLM.from_pretrained(tiny_llama_dir, max_position_embeddings=8)
    with pytest.raises(InputError, match="input_ids is 9 tokens long and the model has 8 positions"):
        answer_logits(model, ragged_batch())


def test_labels_longer_than_the_model_are_refused():
    config = BartConfig(vocab_size=99, d_model=16, encoder_layers=1, decoder_layers=1, max_position_embeddings=8)
    ids = torch.ones(1, 5, dtype=torch.long)
    with pytest.raises(InputError, match="labels is 9 tokens long and the model has 8 positions"):
        answer_logits(BartForConditionalGeneration(config), {"input_ids": ids, "labels": torch.ones(1, 9).long()})
