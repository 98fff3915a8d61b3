"""HyperLoRA beside an ordinary LoRA on one copy of the base weights, and over a base that has a LoRA of its own."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from aag_hf import HyperLoraConfig
from aag_hf.awakening import share_weights

FEATURES = 6
IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
VECTORS = torch.randn(2, FEATURES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def hyper(**options):
    defaults = {"task_type": "CAUSAL_LM", "feature_dim": FEATURES, "hidden_dim": 8, "r": 2, "init_weights": False}
    return HyperLoraConfig(**{**defaults, "target_modules": ["q_proj", "v_proj"], **options})


def lora():
    return LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "o_proj"], init_lora_weights=False)


def adapt(model, config, name="default"):
    torch.manual_seed(1)
    return get_peft_model(model, config, adapter_name=name).double().eval()


def take_a_step(model, **inputs):
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model(input_ids=IDS, labels=IDS, **inputs).loss.backward()
    torch.optim.SGD(trained, lr=1.0).step()


@pytest.fixture
def load_base(tiny_llama_dir):
    return lambda: AutoModelForCausalLM.from_pretrained(tiny_llama_dir, dtype=torch.float64).eval()


@pytest.fixture
def lora_dir(load_base, tmp_path):
    """A LoRA that was trained before."""
    adapt(load_base(), lora()).save_pretrained(tmp_path / "lora")
    return tmp_path / "lora"


@pytest.fixture
def load_adapted(load_base, lora_dir):
    """``load_adapted()``: the base model with that LoRA, under a name of its own."""
    return lambda: PeftModel.from_pretrained(load_base(), lora_dir, adapter_name="domain").get_base_model().eval()


def test_side_by_side_neither_sees_the_other_and_both_reload(load_base, tmp_path):
    base = load_base()
    ordinary, ours = adapt(share_weights(base), lora()), adapt(share_weights(base), hyper())
    assert len({model.get_input_embeddings().weight.data_ptr() for model in (base, ordinary, ours)}) == 1
    alone = adapt(load_base(), hyper())(IDS, features=VECTORS).logits
    torch.testing.assert_close(ours(IDS, features=VECTORS).logits, alone)
    before = ordinary(IDS).logits
    take_a_step(ours, features=VECTORS)
    assert not torch.allclose(ours(IDS, features=VECTORS).logits, alone)
    torch.testing.assert_close(ordinary(IDS).logits, before)
    after = ours(IDS, features=VECTORS).logits
    take_a_step(ordinary)
    assert not torch.allclose(ordinary(IDS).logits, before)
    torch.testing.assert_close(ours(IDS, features=VECTORS).logits, after)
    torch.testing.assert_close(base(IDS).logits, load_base()(IDS).logits)

    for model, name in ((ordinary, "ordinary"), (ours, "ours")):
        model.save_pretrained(tmp_path / name)
    again = [PeftModel.from_pretrained(share_weights(base), tmp_path / name).eval() for name in ("ordinary", "ours")]
    torch.testing.assert_close(again[0](IDS).logits, ordinary(IDS).logits)
    torch.testing.assert_close(again[1](IDS, features=VECTORS).logits, after)


def test_over_a_lora_only_the_hypernetwork_trains(load_adapted):
    adapted = load_adapted()
    expected = adapted(IDS).logits
    model = adapt(adapted, hyper(init_weights=True))
    torch.testing.assert_close(model(IDS, features=VECTORS).logits, expected)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    take_a_step(model, features=VECTORS)
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved and all("hyperlora_net" in name for name in moved)
    assert not torch.allclose(model(IDS, features=VECTORS).logits, expected)


def test_over_a_lora_adapters_are_switched_and_left_out(load_base, load_adapted):
    adapted = load_adapted()
    with_lora = adapted(IDS).logits
    model = adapt(adapted, hyper())
    first = model(IDS, features=VECTORS).logits
    model.add_adapter("second", hyper(target_modules=["down_proj"], init_weights=True))
    model.double().set_adapter("second")
    torch.testing.assert_close(model(IDS, features=VECTORS).logits, with_lora)
    model.set_adapter("default")
    torch.testing.assert_close(model(IDS, features=VECTORS).logits, first)
    with model.disable_adapter():
        torch.testing.assert_close(model(IDS).logits, load_base()(IDS).logits)
    torch.testing.assert_close(model(IDS, features=VECTORS).logits, first)


def test_over_a_lora_the_saved_adapter_is_its_own_and_reloads(load_adapted, tmp_path):
    model = adapt(load_adapted(), hyper())
    model.save_pretrained(tmp_path)
    assert all("hyperlora_net" in name for name in load_file(tmp_path / "adapter_model.safetensors"))
    again = PeftModel.from_pretrained(load_adapted(), tmp_path).eval()
    torch.testing.assert_close(again(IDS, features=VECTORS).logits, model(IDS, features=VECTORS).logits)
