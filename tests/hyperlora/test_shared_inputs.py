"""Layers that read one tensor have one product with it, and every layer the adapter's part that is its own."""

import gc
import weakref
from collections import Counter

import pytest
import torch
from peft import get_peft_model
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from aag_hf import HyperLoraConfig, hyperlora_features
from aag_hf.hyperlora import state

RANK, WIDTH, FEATURES, QUESTIONS = 3, 16, 6, 2


class Block(nn.Module):
    """`apart`, each layer reads a view of its own, so that nothing is shared."""

    def __init__(self, reads: str, apart: bool):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.reads, self.apart, self.widen = reads, apart, False

    def read(self, layer, x):
        return layer(x.view_as(x) if self.apart else x)

    def forward(self, x):
        q = self.read(self.q, x)
        if self.reads == "q twice":
            q = q + self.read(self.q, x)
        if self.reads == "k another tensor":
            k = self.read(self.k, torch.cat([x, x], -1) if self.widen else x * 2)
        elif self.reads == "k the same, changed":
            k = self.read(self.k, x.add_(1))
        else:
            k = self.read(self.k, x)
        v = self.read(self.v, x)
        o = self.read(self.o, x if self.reads == "o the same too" else q * k + v)
        return torch.tanh(o + q * k + v)


class Blocks(nn.Module):
    def __init__(self, reads, apart):
        super().__init__()
        self.blocks = nn.ModuleList(Block(reads_of_block, apart) for reads_of_block in reads)

    def forward(self, x):
        x = torch.tanh(x)
        for block in self.blocks:
            x = block(x)
        return x


class Products(TorchDispatchMode):
    """Counts batched products by the width of their results."""

    def __init__(self):
        super().__init__()
        self.widths = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.bmm.default:
            self.widths[result.shape[-1]] += 1
        return result


def adapted(*reads, static=False, apart=False, **options):
    torch.manual_seed(0)
    config = HyperLoraConfig(
        r=RANK,
        feature_dim=FEATURES,
        hidden_dim=8,
        target_modules=["q", "k", "v", "o"],
        init_weights=False,
        static=static,
        **options,
    )
    return get_peft_model(Blocks(reads, apart).double(), config).double()


def inputs(rows=QUESTIONS, length=5):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(rows, length, WIDTH, generator=g, dtype=torch.float64)
    return x, torch.randn(QUESTIONS, FEATURES, generator=g, dtype=torch.float64)


def products(model, x, features):
    with Products() as counted:
        model(x, features=features)
    return counted.widths


def test_what_the_first_block_reads_as_one_the_others_multiply_as_one():
    assert products(adapted("alike", "alike", "alike"), *inputs()) == {RANK: 4 + 1 + 1, 3 * RANK: 1 + 1}


def test_a_layer_that_reads_twice_counts_once_among_those_that_share():
    assert products(adapted("q twice", "q twice"), *inputs()) == {RANK: 5 + 1, 3 * RANK: 2}


def test_a_static_part_is_shared_too():
    counted = products(adapted("alike", "alike", static=True), *inputs())
    assert counted == {RANK: 2 * (4 + 1), 3 * RANK: 2}


def test_without_gradients_a_cpu_shares_nothing():
    with torch.no_grad():
        assert products(adapted("alike", "alike"), *inputs()) == {RANK: 8}


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize(
    "reads",
    [
        ("alike", "alike", "alike"),
        ("alike", "k another tensor", "alike"),
        ("alike", "o the same too", "alike", "o the same too"),
        ("k another tensor", "alike", "alike"),
        ("q twice", "alike", "q twice"),
    ],
)
def test_outputs_and_gradients_are_those_of_layers_apart(reads, static):
    """Three passages a question."""
    x, features = inputs(rows=QUESTIONS * 3)
    of_models = []
    for apart in (False, True):
        model = adapted(*reads, static=static, apart=apart)
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        with hyperlora_features(model, features):
            output = model(x)
        gradients = torch.autograd.grad(output.square().sum(), list(parameters.values()))
        of_models.append({"output": output, **dict(zip(parameters, gradients))})
    for name, wanted in of_models[1].items():
        torch.testing.assert_close(of_models[0][name], wanted, msg=lambda text, name=name: f"{name}: {text}")


def test_an_input_changed_in_between_is_read_anew():
    x, features = inputs()
    reads = ("alike", "k the same, changed", "alike")
    together, apart = (adapted(*reads, apart=apart)(x, features=features) for apart in (False, True))
    torch.testing.assert_close(together, apart)


def test_gradients_after_a_pass_without_them_in_the_same_scope(monkeypatch):
    """As on other devices, which share without gradients too."""
    monkeypatch.setattr(state, "shares_shrinks", lambda device, with_gradients: True)
    x, features = inputs()
    of_models = []
    for apart in (False, True):
        model = adapted("alike", "alike", "alike", apart=apart)
        parameters = [p for p in model.parameters() if p.requires_grad]
        with hyperlora_features(model, features):
            with torch.no_grad():
                model(x)
            of_models.append(torch.autograd.grad(model(x).square().sum(), parameters))
    for got, wanted in zip(*of_models):
        torch.testing.assert_close(got, wanted)


def test_what_a_pass_made_goes_with_it():
    """Not only when the garbage collector comes by."""
    model, (x, features) = adapted("alike", "alike"), inputs()
    layer = model.get_base_model().blocks[0].q
    gc.disable()
    try:
        with hyperlora_features(model, features):
            model(x)
            adapters = weakref.ref(layer.state)
        assert adapters() is None
    finally:
        gc.enable()


def test_blocks_that_are_computed_again_repeat_themselves():
    """Also those of a model that checkpoints them on its own."""
    model, (x, features) = adapted("alike", "alike", "alike"), inputs()
    blocks = model.get_base_model().blocks
    parameters = [p for p in model.parameters() if p.requires_grad]
    wanted = torch.autograd.grad(model(x, features=features).square().sum(), parameters)
    with hyperlora_features(model, features):
        y = torch.tanh(x)
        for block in blocks:
            y = checkpoint(block, y, use_reentrant=False)
        got = torch.autograd.grad(y.square().sum(), parameters)
    for left, right in zip(got, wanted):
        assert torch.equal(left, right)


def test_only_layers_of_one_width_can_share():
    """The second block's k reads something else, of another width."""
    outputs = []
    for apart in (False, True):
        torch.manual_seed(0)
        model = Blocks(("alike", "k another tensor"), apart)
        model.blocks[1].k = nn.Linear(2 * WIDTH, WIDTH, bias=False)
        model.blocks[1].widen = True
        config = HyperLoraConfig(
            r=RANK, feature_dim=FEATURES, hidden_dim=8, target_modules=["q", "k", "v", "o"], init_weights=False
        )
        x, features = inputs()
        outputs.append(get_peft_model(model.double(), config).double()(x, features=features))
    torch.testing.assert_close(*outputs)


def test_a_pass_does_not_depend_on_those_before_it():
    model, (x, features) = adapted("alike", "alike"), inputs()
    assert products(model, x, features) == products(model, x, features)


def test_a_compiled_pass_is_one_graph():
    model, (x, features) = adapted("alike", "alike"), inputs()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, features=features), model(x, features=features))


def test_dropout_gives_each_layer_an_input_of_its_own():
    model = adapted("alike", "alike", lora_dropout=0.5).train()
    assert products(model, *inputs()) == {RANK: 8}
