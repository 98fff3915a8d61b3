"""In whatever order a model is called, with errors or without, it answers as a model called for the first time."""

import copy
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from peft import get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, StoppingCriteria, StoppingCriteriaList

from aag_hf import HyperLoraConfig, hyperlora_features

FULL = os.environ.get("AAG_RELIABILITY") == "full"
FEATURES = 6
ADAPTERS = ["default", "second"]
questions = st.integers(0, 5)
errors = st.sampled_from([ZeroDivisionError, KeyboardInterrupt, SystemExit, GeneratorExit])


def fresh_model():
    # In double precision a merged adapter and one beside the layer choose the same tokens.
    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=60,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=1,
        )
    ).double()
    config = {"feature_dim": FEATURES, "r": 2, "lora_alpha": 16, "target_modules": "all-linear", "init_weights": False}
    model = get_peft_model(base, HyperLoraConfig(**config))
    model.add_adapter("second", HyperLoraConfig(**config))
    return model.double().eval()


def question(i):
    generator = torch.Generator().manual_seed(i)
    ids = torch.randint(3, 60, (1, 4), generator=generator)
    return {"input_ids": ids, "features": torch.randn(1, FEATURES, generator=generator, dtype=torch.float64)}


def forward(model, i):
    with torch.no_grad():
        return model(**question(i)).logits


def generate(model, i, **options):
    return model.generate(**question(i), max_new_tokens=4, min_new_tokens=4, do_sample=False, **options)


def merged(model, i):
    return generate(model, i, merge_adapter=True)


CALLS = {"forward": forward, "generate": generate, "merged": merged}
calls = st.sampled_from(list(CALLS))


@cache
def expected(call, i, adapter):
    model = fresh_model()
    if adapter is None:
        with model.disable_adapter():
            return CALLS[call](model, i)
    model.set_adapter(adapter)
    return CALLS[call](model, i)


class Scope(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.model = fresh_model()
        self.adapter = "default"
        self.weights = {name: value.clone() for name, value in self.model.state_dict().items()}

    def check(self, call, i, answer, adapter=None):
        torch.testing.assert_close(answer, expected(call, i, adapter or self.adapter), rtol=1e-9, atol=1e-9)

    @rule(call=calls, i=questions)
    def ask(self, call, i):
        self.check(call, i, CALLS[call](self.model, i))

    @rule(adapter=st.sampled_from(ADAPTERS))
    def choose(self, adapter):
        self.model.set_adapter(adapter)
        self.adapter = adapter

    @rule(call=calls, i=questions)
    def ask_without_adapters(self, call, i):
        with self.model.disable_adapter():
            answer = CALLS[call](self.model, i)
        torch.testing.assert_close(answer, expected(call, i, None), rtol=1e-9, atol=1e-9)

    @rule(i=questions, error=errors, merge=st.booleans())
    def fail_inside_generate(self, i, error, merge):
        class Stop(StoppingCriteria):
            def __call__(self, *_, **__):
                raise error

        try:
            generate(self.model, i, merge_adapter=merge, stopping_criteria=StoppingCriteriaList([Stop()]))
        except error:
            return
        raise AssertionError("the error is gone")

    @rule(i=questions, j=questions, error=errors)
    def fail_inside_a_scope(self, i, j, error):
        try:
            with hyperlora_features(self.model, question(i)["features"]):
                # A call with features of its own is answered with these.
                self.check("forward", j, forward(self.model, j))
                raise error
        except error:
            pass

    @rule(i=questions)
    def enter_a_scope(self, i):
        with hyperlora_features(self.model, question(i)["features"]), torch.no_grad():
            answer = self.model(question(i)["input_ids"]).logits
        self.check("forward", i, answer)

    @rule(inside=st.booleans(), i=questions)
    def go_on_with_a_copy(self, inside, i):
        if inside:
            with hyperlora_features(self.model, question(i)["features"]):
                self.model = copy.deepcopy(self.model)
        else:
            self.model = copy.deepcopy(self.model)

    @rule(asked=st.lists(st.tuples(calls, questions), min_size=2, max_size=6))
    def ask_from_two_threads(self, asked):
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda one: CALLS[one[0]](self.model, one[1]), asked))
        for (call, i), answer in zip(asked, answers, strict=True):
            self.check(call, i, answer)

    @invariant()
    def no_pass_is_left(self):
        assert self.model.get_base_model().hypernetworks.current.value is None

    def teardown(self):
        assert all(torch.equal(value, self.weights[name]) for name, value in self.model.state_dict().items())


Scope.TestCase.settings = settings(max_examples=300 if FULL else 8, stateful_step_count=25 if FULL else 12)
TestScope = Scope.TestCase
