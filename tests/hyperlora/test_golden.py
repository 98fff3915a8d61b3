"""HyperLoRA of the paper against input/output vectors of the reference implementation."""

import json
import os
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from aag_hf import FiDT5ForConditionalGeneration, HyperLoraConfig, hyperlora_features

GOLDEN = Path(os.environ.get("AAG_GOLDEN", Path(__file__).resolve().parents[3] / "shared" / "golden"))
NO_FILES = f"no such .safetensors in {GOLDEN}: set AAG_GOLDEN"

# What the reference calls a hypernetwork, and the kind of layers that ours makes one for.
T5_NETS = {
    "hypernet": "encoder_block_layer_SelfAttention_32x32",
    "decoder_hypernet": "decoder_block_layer_SelfAttention_32x32",
    "cross_hypernet": "decoder_block_layer_EncDecAttention_32x32",
    "ffn_en_hypernet_wi": "encoder_block_layer_DenseReluDense_32x128",
    "ffn_en_hypernet_wo": "encoder_block_layer_DenseReluDense_128x32",
    "ffn_de_hypernet_wi": "decoder_block_layer_DenseReluDense_32x128",
    "ffn_de_hypernet_wo": "decoder_block_layer_DenseReluDense_128x32",
}
LLAMA_NETS = {
    "hypernet": "model_layers_self_attn_32x32",
    "mlp_hypernet": "model_layers_mlp_32x64",
    "down_hypernet": "model_layers_mlp_64x32",
}
LLAMA_PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
MLP_LAYERS = {
    "pre_down_linear": ("down", 0),
    "down_linear": ("down", 2),
    "pre_up_linear": ("up", 0),
    "up_linear": ("up", 2),
}


def files(pattern):
    return sorted(GOLDEN.glob(f"{pattern}.safetensors"))


def read(file):
    return load_file(file), json.loads(file.with_suffix(".json").read_text())


def under(tensors, prefix):
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def paper_config(rank, target_modules, task_type=None):
    return HyperLoraConfig(
        task_type=task_type,
        r=rank,
        lora_alpha=1,
        use_rslora=True,
        feature_dim=255,
        hidden_dim=8,
        hypernetwork="mlp",
        layer_index_scale=1.0,
        target_modules=target_modules,
    )


def parameters_by_golden_name(model, kinds):
    """The hypernetworks' parameters of all adapters, as ``<net>.<layer>.<weight or bias>``."""
    named = {}
    for network in model.get_base_model().hypernetworks.hyperlora_net.values():
        for net, kind in kinds.items():
            for layer, (part, index) in MLP_LAYERS.items():
                if kind in network.down:
                    linear = getattr(network, part)[kind][index]
                    named |= {f"{net}.{layer}.{name}": parameter for name, parameter in linear.named_parameters()}
    return named


def with_weights(model, hyper, kinds):
    """The model in evaluation mode, its hypernetworks holding the golden parameters and no others."""
    parameters = parameters_by_golden_name(model, kinds)
    trained = sum(parameter.requires_grad for parameter in model.parameters())
    assert parameters.keys() == hyper.keys() and len(parameters) == trained
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(hyper[name])
    return model.eval()


def assert_near(actual, expected, atol=1e-4):
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def assert_gradients(actual, expected):
    for name, gradient in expected.items():
        largest = gradient.abs().max().item()
        torch.testing.assert_close(
            actual[name], gradient, rtol=0, atol=1e-4 * largest, msg=lambda m, n=name: f"{n}: {m}"
        )


def assert_hypernetwork_gradients(model, kinds, expected):
    actual = parameters_by_golden_name(model, kinds)
    assert actual.keys() == expected.keys()
    assert_gradients({name: parameter.grad for name, parameter in actual.items()}, expected)


class Layers(nn.Module):
    """Equal layers, numbered: the hypernetwork reads a layer's number."""

    def __init__(self, count, weight, bias):
        super().__init__()
        self.block = nn.ModuleList()
        for _ in range(count):
            linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
            linear.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
            self.block.append(nn.ModuleDict({"layer": linear}))


def linear_cases():
    for file in files("hyperlora_linear*"):
        for case in read(file)[1]["cases"]:
            yield pytest.param(file, case, id=f"{file.stem}-{case['tag']}-{case['idx']}-{case['dtype']}")


@pytest.mark.skipif(not files("hyperlora_linear*"), reason=NO_FILES)
@pytest.mark.parametrize(("file", "case"), linear_cases())
def test_one_layer_equals_the_reference(file, case):
    tensors = under(read(file)[0], f"{case['tag']}.")
    expected = under(tensors, f"idx{case['idx']}.{case['dtype']}.")
    dtype = expected["out"].dtype
    base = Layers(case["idx"] + 1, tensors["linear.weight"], tensors.get("linear.bias"))
    model = get_peft_model(base, paper_config(case["rank"], ["layer"]))
    kind = f"block_{case['in_dim']}x{case['out_dim']}"
    hyper = {name: value for name, value in tensors.items() if name.startswith("hypernet.")}
    model = with_weights(model, hyper, {"hypernet": kind}).to(dtype)
    layer = base.block[case["idx"]]["layer"].requires_grad_(True)
    x, features = (tensors[name].to(dtype).requires_grad_(True) for name in ("x", "features"))

    [(a, b)] = base.hypernetworks.hyperlora_net["default"].matrices(features, kind, case["idx"])
    assert_near(a[0], expected["down"])
    assert_near(b[0] * layer.scaling["default"], expected["up"])
    with hyperlora_features(model, features):
        out = layer(x)
        assert_near(layer(tensors["x_rep3"].to(dtype)), expected["out_rep3"])
    with hyperlora_features(model, features[:1]):
        assert_near(layer(tensors["x_rep3"].to(dtype)), expected["out_onefeat"])
    assert_near(out, expected["out"])
    assert_near(out - layer.base_layer(x), expected["delta"])

    (out * tensors["cotangent"].to(dtype)).sum().backward()
    actual = {name: p.grad for name, p in parameters_by_golden_name(model, {"hypernet": kind}).items()}
    actual |= {"linear.weight": layer.base_layer.weight.grad, "x": x.grad, "features": features.grad}
    gradients = under(expected, "grad.")
    assert actual.keys() == gradients.keys()
    assert_gradients(actual, gradients)


def load_t5(file, folder):
    """The golden model; feed-forward layers, whose rank is another, get an adapter of their own beside the first."""
    tensors, facts = read(file)
    base_tensors, base_facts = read(GOLDEN / facts["base"].split()[0])
    save_file(under(base_tensors, "sd."), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(base_facts["config"] | {"model_type": "t5"}))
    hyper = under(tensors, "hyper.")
    nets = {name.split(".")[0] for name in hyper}
    where = r".*\.(q|v)" if "cross_hypernet" in nets else r"encoder.*\.(q|v)"
    model = get_peft_model(
        FiDT5ForConditionalGeneration.from_pretrained(folder), paper_config(facts["rank"], where, "SEQ_2_SEQ_LM")
    )
    if "ffn_en_hypernet_wi" in nets:
        rank = hyper["ffn_en_hypernet_wi.down_linear.bias"].numel() // 32
        model.add_adapter("ffn", paper_config(rank, r".*\.(wi|wo)", "SEQ_2_SEQ_LM"))
        model.base_model.set_adapter(["default", "ffn"])
    return with_weights(model, hyper, {net: T5_NETS[net] for net in nets}), tensors, facts


def inputs_of(tensors, *names):
    return {name: tensors[name] for name in ("input_ids", "attention_mask", "features", *names)}


t5_files = pytest.mark.parametrize("file", files("t5lora_*"), ids=lambda file: file.stem)
t5_needed = pytest.mark.skipif(not files("t5lora_*"), reason=NO_FILES)


@t5_needed
@t5_files
@torch.no_grad()
def test_t5_logits_loss_and_states_equal_the_reference(file, tmp_path):
    model, tensors, _ = load_t5(file, tmp_path)
    for case in (tensors, under(tensors, "b3p5.")):
        outputs = model(**inputs_of(case, "labels"))
        assert_near(outputs.logits, case["logits"])
        assert_near(outputs.loss, case["loss"], atol=1e-5)
        if "encoder_last_hidden_state" in case:
            assert_near(outputs.encoder_last_hidden_state, case["encoder_last_hidden_state"])
    inputs = inputs_of(tensors, "labels")
    with hyperlora_features(model, inputs.pop("features")[:1]):
        assert_near(model(**inputs).logits, tensors["logits_onefeature"])


@t5_needed
@t5_files
def test_t5_gradients_equal_the_reference(file, tmp_path):
    model, tensors, facts = load_t5(file, tmp_path)
    base = model.get_base_model()
    for name in facts["trainable_base"]:
        base.get_parameter(name).requires_grad_(True)
    model(**inputs_of(tensors, "labels")).loss.backward()
    gradients = under(tensors, "grad.")
    assert_hypernetwork_gradients(
        model, {name.split(".")[0]: T5_NETS[name.split(".")[0]] for name in gradients}, gradients
    )
    for name, norm in facts["base_grad_norms"].items():
        assert base.get_parameter(name).grad.norm().item() == pytest.approx(norm, rel=1e-4), name


@t5_needed
@t5_files
@torch.no_grad()
def test_t5_greedy_answers_equal_the_reference(file, tmp_path):
    model, tensors, facts = load_t5(file, tmp_path)
    assert facts["generated"] != facts["base_generated"]
    inputs = inputs_of(tensors)
    assert model.generate(**inputs, max_length=8, do_sample=False).tolist() == tensors["generated"].tolist()
    forced = model(**inputs, decoder_input_ids=tensors["generated"][:, :-1]).logits
    assert_near(forced, tensors["generated_logits"])


llama_files = pytest.mark.parametrize("file", files("llama_hyperlora*"), ids=lambda file: file.stem)
llama_needed = pytest.mark.skipif(not files("llama_hyperlora*"), reason=NO_FILES)


def load_llama(file):
    tensors, facts = read(file)
    base = LlamaForCausalLM(LlamaConfig(**facts["config"]))
    weights = under(tensors, "sd.")
    # Weights of transformers 4.30, which saved the rotary frequencies too.
    base.load_state_dict({name: value for name, value in weights.items() if "rotary_emb" not in name})
    model = get_peft_model(base, paper_config(facts["rank"], LLAMA_PROJECTIONS, "CAUSAL_LM"))
    return with_weights(model, under(tensors, "hyper."), LLAMA_NETS), tensors


@llama_needed
@llama_files
def test_llama_logits_loss_states_and_gradients_equal_the_reference(file):
    """Compared at real tokens: positions at padding differ between versions of transformers."""
    model, tensors = load_llama(file)
    outputs = model(**inputs_of(tensors, "labels"), output_hidden_states=True)
    real = tensors["attention_mask"].bool()
    assert_near(outputs.logits[real], tensors["logits"][real])
    assert_near(outputs.loss, tensors["loss"], atol=1e-5)
    assert_near(torch.stack(outputs.hidden_states)[:, real], tensors["hidden_states"][:, real])
    outputs.loss.backward()
    assert_hypernetwork_gradients(model, LLAMA_NETS, under(tensors, "grad."))


@llama_needed
@llama_files
@torch.no_grad()
def test_llama_greedy_and_beam_answers_equal_the_reference(file):
    model, tensors = load_llama(file)
    inputs, prompt = inputs_of(tensors), tensors["input_ids"].shape[1]
    for name, beams in (("generated", 1), ("generated_beam3", 3)):
        new = tensors[name].shape[1] - prompt
        tokens = model.generate(**inputs, max_new_tokens=new, num_beams=beams, do_sample=False)
        assert tokens.tolist() == tensors[name].tolist(), name
    whole = tensors["generated"]
    mask = torch.cat([tensors["attention_mask"], torch.ones_like(whole[:, prompt:])], dim=1)
    forced = model(input_ids=whole, attention_mask=mask, features=tensors["features"]).logits[:, prompt - 1 : -1]
    assert_near(forced, tensors["generated_logits"])
