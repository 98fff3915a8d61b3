"""Adapters kept for questions that come again."""

import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM

from aag_hf import HyperLoraConfig
from aag_hf.hyperlora import AdapterCache

PROMPTS = torch.tensor([[5, 9, 17, 30], [8, 3, 3, 12], [4, 4, 21, 7]])
FEATURES = torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(params=[{}, {"static": True}, {"hypernetwork": "mlp"}], ids=["plain", "static", "mlp"])
def model(request, tiny_llama_dir):
    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    targets = ["q_proj", "down_proj"]
    config = HyperLoraConfig(feature_dim=6, r=2, target_modules=targets, init_weights=False, **request.param)
    return get_peft_model(base, config).double().eval()


@pytest.fixture
def generated(model):
    """How many questions the hypernetwork made an adapter for, call by call."""
    counts = []
    network = model.get_base_model().hypernetworks.hyperlora_net["default"]
    network.register_forward_pre_hook(lambda _, arguments: counts.append(len(arguments[0])))
    return counts


def scores(model, questions, cache=None, **options):
    settings = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False, "pad_token_id": 0}
    output = model.generate(
        input_ids=PROMPTS[questions],
        features=FEATURES[questions],
        adapter_cache=cache,
        output_scores=True,
        return_dict_in_generate=True,
        **settings,
        **options,
    )
    return torch.stack(output.scores)


def size_of_one(model):
    cache = AdapterCache(2**20)
    scores(model, [0], cache)
    return cache.bytes


def test_only_new_questions_get_an_adapter_made_and_all_get_their_own(model, generated):
    expected = scores(model, [0, 1, 2])
    generated.clear()
    cache = AdapterCache(2**20)
    torch.testing.assert_close(scores(model, [1], cache), expected[:, 1:2])
    torch.testing.assert_close(scores(model, [0, 1, 2], cache), expected)
    torch.testing.assert_close(scores(model, [2, 0, 2], cache), expected[:, [2, 0, 2]])
    torch.testing.assert_close(scores(model, [1], cache, merge_adapter=True), expected[:, 1:2])
    assert generated == [1, 2, 0, 0] and len(cache) == 3


def test_a_question_asked_twice_in_a_batch_is_kept_once(model, generated):
    cache = AdapterCache(2**20)
    torch.testing.assert_close(scores(model, [1, 1], cache)[:, 0], scores(model, [1])[:, 0])
    assert generated[0] == 1 and cache.bytes == size_of_one(model)


def test_the_question_used_longest_ago_makes_room(model, generated):
    cache = AdapterCache(2 * size_of_one(model))
    generated.clear()
    for question in (0, 1, 0, 2, 0, 1):
        scores(model, [question], cache)
        assert cache.bytes <= cache.max_bytes
    assert generated == [1, 1, 0, 1, 0, 1] and len(cache) == 2


def test_without_room_for_one_nothing_is_kept(model):
    cache = AdapterCache(size_of_one(model) - 1)
    torch.testing.assert_close(scores(model, [0, 1], cache), scores(model, [0, 1]))
    assert len(cache) == 0 and cache.bytes == 0


@pytest.mark.parametrize("change", ["a training step", "loading"])
def test_other_weights_make_another_adapter(model, change):
    cache = AdapterCache(2**20)
    before = scores(model, [0], cache)
    trained = [p for p in model.parameters() if p.requires_grad]
    if change == "loading":
        model.load_state_dict({n: torch.ones_like(p) for n, p in model.named_parameters() if p.requires_grad}, False)
    else:
        for parameter in trained:
            parameter.grad = torch.ones_like(parameter)
        torch.optim.SGD(trained, lr=0.1).step()
    after = scores(model, [0], cache)
    assert not torch.allclose(after, before)
    torch.testing.assert_close(after, scores(model, [0]))
    assert len(cache) == 1 and cache.bytes == size_of_one(model)
