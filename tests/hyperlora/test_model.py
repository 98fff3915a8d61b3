"""HyperLoRA as a PEFT method: what its users rely on, for a causal and for an encoder-decoder model."""

import copy
import json

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from aag_hf import HyperLoraConfig, hyperlora_features, to_lora
from aag_hf.hyperlora import save_lora
from aag_hf.hyperlora.layer import HyperLoraLinear

FEATURES = 6
VOCABULARY = 256


@pytest.fixture(params=["llama", "t5"])
def kind(request, tiny_llama_dir, tiny_t5_dir):
    if request.param == "llama":
        return AutoModelForCausalLM, tiny_llama_dir, "CAUSAL_LM", ["q_proj", "v_proj"]
    return AutoModelForSeq2SeqLM, tiny_t5_dir, "SEQ_2_SEQ_LM", ["q", "v"]


VARIANTS = {
    "embedding": {"hypernetwork": "embedding"},
    "mlp": {"hypernetwork": "mlp"},
    "static": {"hypernetwork": "embedding", "static": True},
}
variants = pytest.mark.parametrize("variant", VARIANTS)


def config(kind, **options):
    defaults = {
        "task_type": kind[2],
        "feature_dim": FEATURES,
        "r": 2,
        "hidden_dim": 8,
        "target_modules": list(kind[3]),
        "init_weights": False,
    }
    return HyperLoraConfig(**{**defaults, **options})


def load_base(kind):
    return kind[0].from_pretrained(kind[1], dtype=torch.float64)


def make(kind, **options):
    base = load_base(kind)
    torch.manual_seed(1)
    return get_peft_model(base, config(kind, **options)).double().eval()


def batch(rows=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (rows, 5), generator=g)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": torch.randint(3, VOCABULARY, (rows, 5), generator=g),
        "features": torch.randn(rows, FEATURES, generator=g, dtype=torch.float64),
    }


def without_features(inputs):
    return {name: value for name, value in inputs.items() if name != "features"}


def rows_of(inputs, start, end):
    return {name: value[start:end] for name, value in inputs.items()}


@variants
def test_each_question_gets_its_own_adapter(kind, variant):
    model, inputs = make(kind, **VARIANTS[variant]), batch()
    together = model(**inputs).logits
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], model(**rows_of(inputs, i, i + 1)).logits)
    swapped = model(**{**inputs, "features": inputs["features"].flip(0)}).logits
    assert not torch.allclose(together[0], swapped[0])


@variants
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_fresh_adapter_changes_nothing_bit_for_bit(kind, variant, dtype):
    base = kind[0].from_pretrained(kind[1], dtype=dtype).eval()
    inputs = batch()
    expected = base(**without_features(inputs)).logits
    model = get_peft_model(base, config(kind, init_weights=True, **VARIANTS[variant])).eval()
    assert torch.equal(model(**{**inputs, "features": inputs["features"].float()}).logits, expected)


@variants
def test_first_gradient_is_healthy_from_the_zero_start(kind, variant):
    model = make(kind, init_weights=True, **VARIANTS[variant])
    model(**batch()).loss.backward()
    zero_heads = [p for n, p in model.named_parameters() if p.requires_grad and not p.any()]
    assert zero_heads and all(p.grad.abs().max() > 1e-6 for p in zero_heads if p.numel() > 8)


def test_second_call_without_features_raises_and_never_reuses(kind):
    model, inputs = make(kind), batch()
    first = model(**inputs).logits
    with pytest.raises(RuntimeError, match="without features"):
        model(**without_features(inputs))
    with pytest.raises(RuntimeError, match="without features"):
        model.generate(input_ids=inputs["input_ids"], max_new_tokens=2)
    assert model.get_base_model().hypernetworks.current.value is None
    torch.testing.assert_close(model(**inputs).logits, first)


def test_disabled_adapter_is_the_base_model_with_or_without_features(kind):
    model, inputs = make(kind), batch()
    expected = load_base(kind).eval()(**without_features(inputs)).logits
    with model.disable_adapter():
        torch.testing.assert_close(model(**inputs).logits, expected)
        torch.testing.assert_close(model(**without_features(inputs)).logits, expected)
    assert not torch.allclose(model(**inputs).logits, expected)


def test_only_the_hypernetwork_trains(kind):
    model = make(kind)
    assert {"hyperlora_net" in n for n, p in model.named_parameters() if p.requires_grad} == {True}
    assert not any("hyperlora_net" in n for n, p in model.named_parameters() if not p.requires_grad)


@variants
@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_save_and_load_give_the_same_logits(kind, variant, low_cpu_mem_usage, tmp_path):
    model, inputs = make(kind, **VARIANTS[variant]), batch()
    expected = model(**inputs).logits
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(load_base(kind), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage).double().eval()
    torch.testing.assert_close(again(**inputs).logits, expected)
    assert not any(p.requires_grad for p in again.parameters())
    again.load_adapter(tmp_path, "second")
    again.set_adapter("second")
    torch.testing.assert_close(again.double()(**inputs).logits, expected)
    native = kind[0].from_pretrained(tmp_path, dtype=torch.float64).double().eval()
    torch.testing.assert_close(native(**inputs).logits, expected)
    call = {n: inputs[n] for n in ("input_ids", "attention_mask", "features")}
    assert torch.equal(native.generate(**call, max_new_tokens=3), model.generate(**call, max_new_tokens=3))


def test_auto_peft_model_loads_it(tiny_llama_dir, tmp_path):
    kind = (AutoModelForCausalLM, tiny_llama_dir, "CAUSAL_LM", ["q_proj"])
    model, inputs = make(kind), batch()
    model.save_pretrained(tmp_path)
    again = AutoPeftModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64).double().eval()
    torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits)


def test_checkpoint_holds_each_tensor_once(kind, tmp_path):
    model = make(kind)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    trained = [p for p in model.parameters() if p.requires_grad]
    assert sum(t.numel() for t in saved.values()) == sum(p.numel() for p in trained)


def test_several_adapters_live_side_by_side(kind):
    model, inputs = make(kind), batch()
    first = model(**inputs).logits
    model.add_adapter("second", config(kind, r=3, target_modules=kind[3][:1]))
    model.double()
    torch.testing.assert_close(model(**inputs).logits, first)
    model.set_adapter("second")
    assert not torch.allclose(model(**inputs).logits, first)
    model.set_adapter("default")
    model.delete_adapter("second")
    torch.testing.assert_close(model(**inputs).logits, first)


GENERATE = [
    {"num_beams": 3},
    {"num_beams": 3, "num_return_sequences": 2},
    {"do_sample": False},
    {"do_sample": True, "top_k": 1, "num_return_sequences": 3},
]


@pytest.mark.parametrize("options", GENERATE)
def test_generate_matches_one_question_at_a_time(kind, options):
    model, inputs = make(kind), batch()
    call = {n: inputs[n] for n in ("input_ids", "attention_mask", "features")}
    options = {"max_new_tokens": 5, "min_new_tokens": 5, **options}
    together = model.generate(**call, **options)
    per_question = len(together) // 3
    for i in range(3):
        alone = model.generate(**rows_of(call, i, i + 1), **options)
        assert torch.equal(together[i * per_question : (i + 1) * per_question], alone)


def test_generate_makes_the_adapters_once(kind):
    model, inputs = make(kind), batch()
    network = model.get_base_model().hypernetworks.hyperlora_net["default"]
    calls = []
    network.register_forward_hook(lambda *_: calls.append(1))
    call = {n: inputs[n] for n in ("input_ids", "attention_mask", "features")}
    model.generate(**call, max_new_tokens=5, min_new_tokens=5)
    assert len(calls) == 1


@pytest.mark.parametrize("reentrant", [False, True])
@variants
def test_gradient_checkpointing_is_exact(kind, variant, reentrant):
    plain = make(kind, **VARIANTS[variant]).train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.activation_checkpointing_enable({"use_reentrant": reentrant})
    checkpointed.enable_input_require_grads()

    def gradients(model):
        first = model(**batch(seed=1)).loss
        with model.disable_adapter(), torch.no_grad():
            model(**batch(seed=3))
        (first + 2 * model(**batch(seed=2)).loss).backward()
        return {n: p.grad for n, p in model.named_parameters() if p.requires_grad}

    expected, actual = gradients(plain), gradients(checkpointed)
    assert expected and all(gradient.abs().sum() > 0 for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, msg=lambda text, name=name: f"{name}: {text}")


@variants
def test_exported_lora_gives_the_same_logits(kind, variant, tmp_path):
    model, inputs = make(kind, lora_alpha=3, **VARIANTS[variant]), batch(1)
    expected = model(**inputs).logits
    save_lora(tmp_path, *to_lora(model, inputs["features"][0]))
    named = json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"]
    assert named == sorted(named)
    plain = PeftModel.from_pretrained(load_base(kind), tmp_path).double().eval()
    torch.testing.assert_close(plain(**without_features(inputs)).logits, expected)
    torch.testing.assert_close(plain.merge_and_unload()(**without_features(inputs)).logits, expected)


class Remembering(torch.nn.Linear):
    """Remembers where its last output lay."""

    def forward(self, x):
        output = super().forward(x)
        self.place = output.data_ptr()
        return output


class OneLayer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.q = Remembering(4, 5)

    def forward(self, x):
        return self.q(x)


def test_the_base_layers_output_is_changed_only_where_nobody_reads_it():
    config = HyperLoraConfig(feature_dim=FEATURES, r=2, target_modules=["q"], init_weights=False)
    model = get_peft_model(OneLayer(), config).double()
    layer = model.get_base_model().q
    x, features = torch.randn(2, 3, 4).double(), torch.randn(2, FEATURES).double()
    with torch.no_grad():
        assert model(x, features=features).data_ptr() == layer.base_layer.place
    assert model(x, features=features).data_ptr() != layer.base_layer.place
    seen = []
    layer.base_layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        model(x, features=features)
        assert torch.equal(seen[0], layer.base_layer(x))


def test_scope_for_calls_below_the_model(tiny_t5_dir):
    kind = (AutoModelForSeq2SeqLM, tiny_t5_dir, "SEQ_2_SEQ_LM", ["q", "v"])
    model, inputs = make(kind), batch(2)
    encoder, passages = model.get_base_model().encoder, 3
    ids = inputs["input_ids"].repeat_interleave(passages, dim=0)
    with hyperlora_features(model, inputs["features"]):
        states = encoder(input_ids=ids).last_hidden_state
    with hyperlora_features(model, inputs["features"].repeat_interleave(passages, dim=0)):
        torch.testing.assert_close(encoder(input_ids=ids).last_hidden_state, states)


def test_adapts_layers_that_plain_lora_already_adapts(tiny_llama_dir):
    base = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    base = get_peft_model(base, LoraConfig(target_modules=["q_proj"], init_lora_weights=False)).base_model.model
    inputs = without_features(batch())
    expected = base.eval()(**inputs).logits
    kind = (None, None, "CAUSAL_LM", ["q_proj"])
    model = get_peft_model(base, config(kind, init_weights=True)).eval()
    torch.testing.assert_close(model(**inputs, features=batch()["features"]).logits, expected)


def test_unload_returns_the_base_model(kind):
    model, inputs = make(kind), without_features(batch())
    base = model.unload()
    assert not any(isinstance(m, HyperLoraLinear) for m in base.modules()) and not hasattr(base, "hypernetworks")
    torch.testing.assert_close(base(**inputs).logits, load_base(kind).eval()(**inputs).logits)
    base.generate(input_ids=inputs["input_ids"], max_new_tokens=2)


def test_dropout_acts_on_the_adapter_only(kind):
    model, inputs = make(kind, lora_dropout=0.9).train(), batch()
    assert not torch.allclose(model(**inputs).logits, model(**inputs).logits)
    with model.disable_adapter():
        torch.testing.assert_close(model(**inputs).logits, model(**inputs).logits)


def test_all_linear_and_layers_to_transform(tiny_llama_dir):
    kind = (AutoModelForCausalLM, tiny_llama_dir, "CAUSAL_LM", ["q_proj"])
    everything = make(kind, target_modules="all-linear")
    assert sum(isinstance(m, HyperLoraLinear) for m in everything.modules()) == 14
    second_only = make(kind, layers_to_transform=[1])
    names = [n for n, m in second_only.named_modules() if isinstance(m, HyperLoraLinear)]
    assert len(names) == 1 and ".1." in names[0]


def test_bf16_base_keeps_the_hypernetwork_in_fp32(kind):
    base = kind[0].from_pretrained(kind[1], dtype=torch.bfloat16)
    model = get_peft_model(base, config(kind))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    model(**{**batch(), "features": batch()["features"].float()}).loss.backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": torch.zeros(2, FEATURES)}, "features has 2 rows, the input has 3"),
        ({"features": torch.zeros(3, FEATURES + 1)}, r"features has shape \(3, 7\), adapter 'default' expects"),
        ({"features": torch.zeros(FEATURES)}, "features has"),
    ],
)
def test_wrong_features_are_named(kind, change, message):
    model = make(kind)
    with pytest.raises(ValueError, match=message):
        model(**{**batch(), **change})
    with pytest.raises(ValueError, match=message):
        model.generate(input_ids=batch()["input_ids"], **change)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r": 0}, "r must be a positive integer, got 0"),
        ({"feature_dim": -1}, "feature_dim must be"),
        ({"hypernetwork": "transformer"}, "'embedding', 'mlp' or 'memory', got 'transformer'"),
        ({"lora_dropout": 1.0}, "lora_dropout must be in"),
        ({"layer_index_scale": 1.0}, "belongs to hypernetwork='mlp'"),
        ({"layers_pattern": "layers"}, "needs layers_to_transform"),
    ],
)
def test_config_refuses_what_it_cannot_do(options, message):
    with pytest.raises(ValueError, match=message):
        HyperLoraConfig(**options)


def test_merging_is_refused_with_the_way_out(kind):
    with pytest.raises(ValueError, match="to_lora"):
        make(kind).merge_and_unload()


def test_layers_that_are_not_linear_are_refused(tiny_llama_dir):
    base = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    with pytest.raises(TypeError, match="embed_tokens is a Embedding"):
        get_peft_model(base, HyperLoraConfig(feature_dim=FEATURES, target_modules=["embed_tokens"]))


def test_export_of_an_unknown_adapter_names_those_there_are(kind):
    with pytest.raises(ValueError, match="no HyperLoRA adapter named 'other'; the model has: default"):
        to_lora(make(kind), torch.zeros(FEATURES), "other")


@pytest.mark.parametrize(("spoil", "said"), [("remove", "is missing"), ("nan", "has NaN or infinity")])
def test_an_incomplete_adapter_file_is_refused_whoever_loads_it(kind, tmp_path, spoil, said):
    make(kind).save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if "head_a" in name)
    if spoil == "remove":
        del tensors[name]
    else:
        tensors[name][0, 0] = torch.nan
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(RuntimeError, match=said):
        PeftModel.from_pretrained(load_base(kind), tmp_path)
