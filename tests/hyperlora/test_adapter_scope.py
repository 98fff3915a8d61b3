"""The adapters of a pass reach its own layers in its own thread, and end with it."""

import copy
import io
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from accelerate import cpu_offload
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, StoppingCriteria, StoppingCriteriaList

from aag_hf import HyperLoraConfig, hyperlora_features

FEATURES = 6
QUESTIONS = 6


@pytest.fixture
def model(tiny_llama_dir):
    return adapted(AutoModelForCausalLM.from_pretrained(tiny_llama_dir))


def adapted(base, **options):
    torch.manual_seed(3)
    settings = {"feature_dim": FEATURES, "r": 2, "lora_alpha": 16, "target_modules": "all-linear"}
    return get_peft_model(base, HyperLoraConfig(init_weights=False, **settings, **options)).eval()


@pytest.fixture
def restless_threads():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)


def question(i):
    generator = torch.Generator().manual_seed(i)
    ids = torch.randint(3, 200, (1, 5), generator=generator)
    return {"input_ids": ids, "features": torch.randn(1, FEATURES, generator=generator)}


def logits(model, i):
    with torch.no_grad():
        return model(**question(i)).logits


def decode(model, i, **options):
    settings = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    return model.generate(**question(i), **settings, **options).tolist()


def is_empty(model):
    return model.get_base_model().hypernetworks.current.value is None


CALLS = {
    "forward": lambda model, i: logits(model, i).tolist(),
    "generate": decode,
    "merged": lambda model, i: decode(model, i, merge_adapter=True),
}


@pytest.mark.parametrize("call", CALLS)
def test_each_thread_is_answered_with_its_own_adapter(model, call, restless_threads):
    before = {name: p.clone() for name, p in model.named_parameters()}
    alone = [CALLS[call](model, i) for i in range(QUESTIONS)]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda i: CALLS[call](model, i % QUESTIONS), range(4 * QUESTIONS)))
    for i, answer in enumerate(together):
        torch.testing.assert_close(torch.tensor(answer), torch.tensor(alone[i % QUESTIONS]))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert len({str(answer) for answer in alone}) == QUESTIONS


def test_a_scope_is_not_seen_by_other_threads(model):
    with ThreadPoolExecutor(1) as pool, hyperlora_features(model, question(0)["features"]):
        model(question(0)["input_ids"])
        with pytest.raises(RuntimeError, match="without features"):
            pool.submit(model, question(0)["input_ids"]).result()


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("options", [{}, {"merge_adapter": True}])
def test_no_adapter_outlives_an_exception(model, error, options):
    class Stop(StoppingCriteria):
        def __call__(self, *_, **__):
            raise error

    with pytest.raises(error):
        decode(model, 0, stopping_criteria=StoppingCriteriaList([Stop()]), **options)
    assert is_empty(model)
    with pytest.raises(error), hyperlora_features(model, question(0)["features"]):
        raise error
    assert is_empty(model)


def test_the_adapters_of_a_pass_are_freed_with_it(model):
    made = []

    def note(network, _, output):
        made.append(torch.utils.weak.WeakTensorKeyDictionary())
        made[-1][next(iter(output.values()))[0][0]] = True

    model.get_base_model().hypernetworks.hyperlora_net["default"].register_forward_hook(note)
    logits(model, 0)
    assert len(made) == 1 and len(made[0]) == 0


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": lambda model: load_whole(model),
}


def load_whole(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("make_copy", COPIES)
def test_a_copy_answers_alike_and_is_the_models_class(model, make_copy):
    again = COPIES[make_copy](model)
    assert torch.equal(logits(again, 1), logits(model, 1)) and decode(again, 1) == decode(model, 1)
    assert type(again.get_base_model()) is type(model.get_base_model())
    assert type(again.get_base_model()).__name__ == "LlamaForCausalLM"
    with hyperlora_features(model, question(0)["features"]):
        assert is_empty(copy.deepcopy(model)) and is_empty(again)


def test_without_the_method_the_class_is_what_it_was(tiny_llama_dir):
    base = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    before, ids = type(base), question(0)["input_ids"]
    expected = base(ids).logits
    model = adapted(base)
    model.train().gradient_checkpointing_enable()
    model(**question(0), use_cache=False)
    plain = model.eval().unload()
    assert type(plain) is before and torch.equal(plain(ids).logits, expected)


def test_a_compiled_pass_is_one_graph(model):
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for i in (0, 1):
        torch.testing.assert_close(compiled(**question(i), use_cache=False).logits, logits(model, i))


def test_features_are_brought_to_the_adapters_device(model):
    """The meta device stands in for any accelerator: a tensor left on the CPU cannot be used with it."""
    on_meta = model.to("meta")
    assert on_meta(question(0)["input_ids"].to("meta"), features=question(0)["features"]).logits.is_meta


def test_a_base_whose_first_layers_are_offloaded_works_as_for_lora(tiny_llama_dir):
    base, plain = (AutoModelForCausalLM.from_pretrained(tiny_llama_dir) for _ in range(2))
    cpu_offload(base.model.layers[0])
    model, expected = adapted(base), adapted(plain)
    assert not any(p.is_meta for p in base.hypernetworks.parameters())
    torch.testing.assert_close(logits(model, 0), logits(expected, 0))
    assert decode(model, 0) == decode(expected, 0)
    lora_base = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    cpu_offload(lora_base.model.layers[0])
    assert get_peft_model(lora_base, LoraConfig(r=2, target_modules="all-linear"))(question(0)["input_ids"]) is not None


def test_features_that_are_not_finite_are_refused_by_row(model):
    features = torch.ones(2, FEATURES)
    features[1, 3] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinity in row 1"):
        model(input_ids=torch.tensor([[5], [6]]), features=features)


@pytest.mark.parametrize("name", ["input_ids", "inputs_embeds"])
def test_another_number_of_questions_is_refused_however_they_are_given(model, name):
    inputs = torch.tensor([[5, 6]] * 4)
    inputs = model.get_input_embeddings()(inputs) if name == "inputs_embeds" else inputs
    for call in (model, model.generate):
        with pytest.raises(ValueError, match="features has 2 rows, the input has 4"):
            call(**{name: inputs}, features=torch.ones(2, FEATURES))
