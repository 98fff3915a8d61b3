"""HyperLoRA on many architectures: attaches, trains, saves, reloads, generates, and exports what vanilla PEFT reads."""

from dataclasses import dataclass

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
)

from aag_hf import HyperLoraConfig, to_lora
from aag_hf.hyperlora.layer import HyperLoraLinear

FEATURES = 6
VOCABULARY = 96


@dataclass(frozen=True)
class Architecture:
    """A tiny configuration, some of its linear layers by name, and how many ``all-linear`` finds."""

    model_type: str
    options: dict
    names: tuple[str, ...]
    linear_layers: int
    is_encoder_decoder: bool = False

    def build(self) -> PreTrainedModel:
        config = AutoConfig.for_model(
            self.model_type, vocab_size=VOCABULARY, pad_token_id=0, bos_token_id=2, eos_token_id=1, **self.options
        )
        torch.manual_seed(0)
        auto = AutoModelForSeq2SeqLM if self.is_encoder_decoder else AutoModelForCausalLM
        return auto.from_config(config).double().eval()

    def adapt(self, targets, base=None, **options):
        names = "all-linear" if targets == "all-linear" else list(self.names)
        task_type = "SEQ_2_SEQ_LM" if self.is_encoder_decoder else "CAUSAL_LM"
        config = HyperLoraConfig(
            task_type=task_type, r=2, feature_dim=FEATURES, hidden_dim=8, target_modules=names, **options
        )
        torch.manual_seed(1)
        return get_peft_model(base or self.build(), config).double().eval()


T5 = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.0,
}
BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "decoder_start_token_id": 1,
    "dropout": 0.0,
}
DECODER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = {**DECODER, "num_key_value_heads": 2}
OPT = {"hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4}

ARCHITECTURES = {
    "T5": Architecture("t5", T5, ("q", "v", "wo"), 32, True),
    "T5 v1.1": Architecture("t5", {**T5, "feed_forward_proj": "gated-gelu"}, ("q", "wi_0", "wo"), 36, True),
    "BART": Architecture("bart", BART, ("q_proj", "out_proj", "fc1"), 32, True),
    "Llama": Architecture("llama", GROUPED, ("q_proj", "v_proj", "down_proj"), 14),
    "Qwen3": Architecture("qwen3", {**GROUPED, "head_dim": 8}, ("q_proj", "v_proj", "up_proj"), 14),
    "Gemma": Architecture("gemma", {**GROUPED, "head_dim": 8}, ("q_proj", "v_proj", "gate_proj"), 14),
    "Mistral": Architecture("mistral", GROUPED, ("k_proj", "o_proj"), 14),
    "Phi": Architecture("phi", {**DECODER, "resid_pdrop": 0.0}, ("q_proj", "dense", "fc2"), 12),
    "GPT-NeoX": Architecture("gpt_neox", DECODER, ("query_key_value", "dense_4h_to_h"), 8),
    "OPT": Architecture("opt", {**OPT, "dropout": 0.0}, ("q_proj", "out_proj", "fc2"), 12),
}

architectures = pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=list(ARCHITECTURES))
by_names_or_all = pytest.mark.parametrize("targets", ["names", "all-linear"])


def make_batch(rows=2):
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(3, VOCABULARY, (rows, 5), generator=draw)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": torch.randint(3, VOCABULARY, (rows, 5), generator=draw),
        "features": torch.randn(rows, FEATURES, generator=draw, dtype=torch.float64),
    }


def without(inputs, *names):
    return {name: value for name, value in inputs.items() if name not in names}


def gradients(model, inputs):
    model.zero_grad()
    model(**inputs).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


# Without gradients: torch multiplies frozen and trained weights in other ways, which differ in the last bit.
@torch.no_grad()
@architectures
@by_names_or_all
def test_a_fresh_adapter_sits_in_every_target_and_changes_no_bit(architecture, targets):
    inputs, base = make_batch(), architecture.build()
    expected = base(**without(inputs, "features")).logits
    model = architecture.adapt(targets, base)
    layers = [name for name, module in model.named_modules() if isinstance(module, HyperLoraLinear)]
    if targets == "all-linear":
        assert len(layers) == architecture.linear_layers
    else:
        assert {name.rpartition(".")[2] for name in layers} == set(architecture.names)
    assert torch.equal(model(**inputs).logits, expected)


@architectures
@by_names_or_all
def test_every_weight_of_the_adapter_learns_and_checkpointing_gives_the_same_gradients(architecture, targets):
    model, inputs = architecture.adapt(targets, init_weights=False), make_batch()
    plain = gradients(model.train(), inputs)
    assert plain and all("hyperlora_net" in name for name in plain)
    assert all(gradient.any() for gradient in plain.values())
    model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
    for name, gradient in gradients(model, inputs).items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-9, atol=1e-12)
    # Down the gradient by a step that should lower the loss by this much; models compute it in float32.
    expected, before = 2e-5, model(**inputs).loss.item()
    learning_rate = expected / sum(gradient.square().sum().item() for gradient in plain.values())
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=learning_rate).step()
    assert before - model(**inputs).loss.item() == pytest.approx(expected, rel=0.3)


@architectures
@by_names_or_all
def test_a_saved_adapter_reloads_and_generates_the_same(architecture, targets, tmp_path):
    model, inputs = architecture.adapt(targets, init_weights=False), make_batch()
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(architecture.build(), tmp_path).eval()
    logits = model(**inputs).logits
    assert torch.equal(again(**inputs).logits, logits)
    prompts = {**without(inputs, "labels"), "max_new_tokens": 4, "do_sample": False}
    tokens = model.generate(**prompts)
    assert torch.equal(again.generate(**prompts), tokens)
    one_by_one = [
        model.generate(**{n: v[i : i + 1] if torch.is_tensor(v) else v for n, v in prompts.items()}) for i in range(2)
    ]
    for row, alone in zip(tokens, one_by_one):
        assert torch.equal(row[: alone.shape[1]], alone[0])


@architectures
@by_names_or_all
def test_a_question_s_adapter_exported_gives_vanilla_peft_the_same_logits(architecture, targets, tmp_path):
    model, inputs = architecture.adapt(targets, init_weights=False, static=True), make_batch(rows=1)
    lora, weights = to_lora(model, inputs["features"])
    lora.save_pretrained(tmp_path)
    save_file(weights, tmp_path / "adapter_model.safetensors")
    vanilla = PeftModel.from_pretrained(architecture.build(), tmp_path).double().eval()
    plain = without(inputs, "features")
    base = architecture.build()(**plain).logits
    expected = model(**inputs).logits
    assert not torch.allclose(expected, base, atol=1e-3)
    torch.testing.assert_close(vanilla(**plain).logits, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(vanilla.merge_and_unload()(**plain).logits, expected, rtol=1e-9, atol=1e-9)
