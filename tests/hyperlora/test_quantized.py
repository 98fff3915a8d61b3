"""HyperLoRA on 8-bit and 4-bit bases: trains, saves, reloads, exports; needs the extra `quantization`."""

import pytest
import torch
from peft import PeftModel, get_peft_model, prepare_model_for_kbit_training
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from aag_hf import HyperLoraConfig, to_lora
from aag_hf.hyperlora.layer import HyperLoraLinear

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install aag-hf[quantization]")

FEATURES = 6
KINDS = {
    "8 bit": {"load_in_8bit": True},
    "4 bit": {"load_in_4bit": True, "bnb_4bit_compute_dtype": torch.float32, "bnb_4bit_quant_type": "nf4"},
}


@pytest.fixture(scope="module")
def llama_dir(tmp_path_factory):
    """A random Llama whose rows are as long as the blocks that 4-bit weights come in."""
    sizes = {"vocab_size": 256, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=4, pad_token_id=0))
    directory = tmp_path_factory.mktemp("models") / "llama"
    model.save_pretrained(directory)
    return directory


@pytest.fixture(params=KINDS)
def load_base(request, llama_dir):
    quantization = BitsAndBytesConfig(**KINDS[request.param])
    return lambda: AutoModelForCausalLM.from_pretrained(
        llama_dir, quantization_config=quantization, device_map={"": "cpu"}
    )


def adapt(base, **options):
    torch.manual_seed(1)
    config = HyperLoraConfig(
        task_type="CAUSAL_LM", r=2, feature_dim=FEATURES, hidden_dim=8, target_modules="all-linear", **options
    )
    return get_peft_model(base, config).eval()


def make_batch(rows=2):
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 200, (rows, 5), generator=draw)
    return {"input_ids": ids, "labels": ids, "features": torch.randn(rows, FEATURES, generator=draw)}


@torch.no_grad()
def test_a_fresh_adapter_changes_no_bit(load_base):
    inputs, base = make_batch(), load_base().eval()
    expected = base(input_ids=inputs["input_ids"]).logits
    assert torch.equal(adapt(base)(**inputs).logits, expected)


def test_it_trains_saves_reloads_and_exports(load_base, tmp_path):
    kbit = {"gradient_checkpointing_kwargs": {"use_reentrant": False}}
    model, inputs = adapt(prepare_model_for_kbit_training(load_base(), **kbit), init_weights=False), make_batch()
    assert any(isinstance(m, HyperLoraLinear) and m.quantization_backend is not None for m in model.modules())
    before = model.train()(**inputs).loss
    before.backward()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained and all("hyperlora_net" in name and p.grad.any() for name, p in trained.items())
    torch.optim.SGD(trained.values(), lr=1e-4).step()
    assert model(**inputs).loss < before

    model.eval().save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(prepare_model_for_kbit_training(load_base(), **kbit), tmp_path / "adapter").eval()
    logits = model(**inputs).logits
    torch.testing.assert_close(again(**inputs).logits, logits)

    one = {name: value[:1] for name, value in inputs.items()}
    lora, weights = to_lora(model, one["features"])
    lora.save_pretrained(tmp_path / "lora")
    save_file(weights, tmp_path / "lora" / "adapter_model.safetensors")
    vanilla = PeftModel.from_pretrained(prepare_model_for_kbit_training(load_base(), **kbit), tmp_path / "lora").eval()
    torch.testing.assert_close(vanilla(input_ids=one["input_ids"]).logits, model(**one).logits, rtol=1e-4, atol=1e-4)
