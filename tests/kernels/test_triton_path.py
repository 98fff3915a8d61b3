"""The Triton kernels against the formula in float64: on a GPU where there is one, else in Triton's interpreter."""

from functools import partial

import pytest
import torch
from peft import get_peft_model
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM

from aag_hf import HyperLoraConfig
from aag_hf.kernels.hyper_lora import functional, hyper_lora_add, hyper_lora_linear, hyper_lora_naive, triton_path

pytest.importorskip("triton", reason="triton is not installed: the kernels have no interpreter to run in")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAMES = ("x", "weight", "a", "b", "bias")
TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
CASES = {
    "padded": (3, (3, 21), None),
    "decoding": (5, (5, 1), None),
    "one sample": (1, (1, 37), None),
    "passages": (2, (8, 3), None),
    "packed": (4, (41,), [0, 17, 18, 34, 41]),
    "packed with empty samples": (6, (33,), [0, 0, 20, 20, 20, 33, 33]),
}


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch):
    """torch fills what it allocates with NaN, so that a value read before it was written is seen."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.empty(2).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def triton_on_any_device(monkeypatch):
    """The kernels run in the interpreter too where they are asked for."""
    monkeypatch.setattr(functional, "choose_path", lambda *facts: "triton" if facts[-1] else "torch")


def surrounded(tensor):
    """The same numbers as a part of a larger tensor of NaN, so that a read past an edge is seen."""
    outside = torch.full([size + 2 for size in tensor.shape], float("nan"), dtype=tensor.dtype, device=tensor.device)
    inside = outside[tuple(slice(1, size + 1) for size in tensor.shape)]
    return inside.copy_(tensor)


def tensors(samples, rows, rank, dtype=torch.float32, d_in=130, d_out=150):
    g = torch.Generator().manual_seed(0)
    shapes = {
        "x": ((*rows, d_in), 1.0),
        "weight": ((d_out, d_in), d_in**-0.5),
        "a": ((samples, d_in, rank), d_in**-0.5),
        "b": ((samples, rank, d_out), rank**-0.5),
        "bias": ((d_out,), 1.0),
    }
    return [(torch.randn(s, generator=g) * size).to(DEVICE, dtype).requires_grad_() for s, size in shapes.values()]


def on_device(bounds):
    return None if bounds is None else torch.tensor(bounds, dtype=torch.int32, device=DEVICE)


def assert_near(name, actual, expected, dtype):
    """Every element within a tolerance of the tensor's largest: sums of many terms cancel."""
    assert actual.dtype == dtype and actual.shape == expected.shape
    error = (actual.double() - expected).abs().max() / expected.abs().max()
    assert error <= TOLERANCE[dtype], f"{name} is off by {error:.2g} of its largest value"


def check_against_float64(inputs, cu_seqlens, dtype, scale=0.7):
    """Output and every gradient of both functions."""
    wide = [t.detach().double().requires_grad_() for t in inputs]
    expected = hyper_lora_naive(*wide, scale=scale, cu_seqlens=cu_seqlens)
    cotangent = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(DEVICE, dtype)
    wanted = torch.autograd.grad(expected, wide, cotangent.double())
    x, weight, a, b, bias = inputs
    base = torch.nn.functional.linear(x, weight, bias)
    for actual in (
        triton_path.hyper_lora_linear(x, weight, a, b, bias, scale, cu_seqlens),
        triton_path.hyper_lora_add(base, x, a, b, scale, cu_seqlens),
    ):
        assert_near("the output", actual, expected, dtype)
        for name, left, right in zip(NAMES, torch.autograd.grad(actual, inputs, cotangent, retain_graph=True), wanted):
            assert_near(f"the gradient of {name}", left, right, dtype)


@pytest.mark.parametrize("rank", [1, 3, 4, 8, 32, 64])
@pytest.mark.parametrize("case", CASES)
def test_output_and_gradients_equal_the_formula(case, rank):
    samples, rows, bounds = CASES[case]
    check_against_float64(tensors(samples, rows, rank), on_device(bounds), torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", ["padded", "packed with empty samples"])
def test_half_precision_accumulates_in_fp32(case, dtype):
    samples, rows, bounds = CASES[case]
    check_against_float64(tensors(samples, rows, 8, dtype), on_device(bounds), dtype)


@torch.no_grad()
def test_the_tiles_of_many_rows():
    x, weight, a, b, bias = tensors(2, (8195,), 3, torch.float16, d_in=20, d_out=18)
    cu_seqlens = on_device([0, 8189, 8195])
    actual = triton_path.hyper_lora_linear(x, weight, a, b, bias, 0.7, cu_seqlens)
    expected = hyper_lora_naive(*(t.double() for t in (x, weight, a, b, bias)), scale=0.7, cu_seqlens=cu_seqlens)
    assert_near("the output", actual, expected, torch.float16)


@pytest.mark.parametrize("case", ["padded", "packed"])
def test_strided_inputs_and_no_read_past_an_edge(case):
    samples, rows, bounds = CASES[case]
    x, weight, a, b, bias = (t.detach() for t in tensors(samples, rows, 3))
    strided = [surrounded(x), weight, surrounded(a.mT).mT, surrounded(b), bias]
    assert not any(t.is_contiguous() for t in (strided[0], strided[2], strided[3]))
    check_against_float64([t.requires_grad_() for t in strided], on_device(bounds), torch.float32)


def test_inputs_with_spread_out_columns_and_an_expanded_gradient():
    x, weight, a, b, _ = tensors(3, (15,), 4)
    spread = x.detach().mT.contiguous().mT.requires_grad_()
    triton_path.hyper_lora_linear(spread, weight, a, b, None, 1.0, None).sum().backward()
    (expected,) = torch.autograd.grad(hyper_lora_naive(x, weight, a, b).sum(), x)
    torch.testing.assert_close(spread.grad, expected, atol=1e-4, rtol=1e-4)


def test_only_the_gradients_asked_for_are_made():
    x, weight, a, b, _ = (t.detach() for t in tensors(3, (3, 5), 4))
    output = triton_path.hyper_lora_linear(x, weight, a, b.requires_grad_(), None, 1.0, None)
    output.sum().backward()
    assert b.grad is not None and x.grad is weight.grad is a.grad is None


def test_the_base_output_is_left_as_it_was():
    x, weight, a, b, _ = (t.detach() for t in tensors(3, (3, 5), 4))
    base = torch.nn.functional.linear(x, weight)
    before = base.clone()
    assert not torch.equal(triton_path.hyper_lora_add(base, x, a, b, 1.0, None), before)
    assert torch.equal(base, before)


def test_zero_b_leaves_the_base_output_bit_for_bit():
    x, weight, a, b, bias = (t.detach() for t in tensors(3, (3, 5), 4, torch.float16))
    base = torch.nn.functional.linear(x, weight, bias)
    assert torch.equal(triton_path.hyper_lora_add(base, x, a, torch.zeros_like(b), 1.0, None), base)


@pytest.mark.parametrize("bounds", [None, [0, 2, 2, 15]])
@pytest.mark.parametrize("op", ["shrink", "expand", "expand_", "outer"])
def test_operators_keep_to_torchs_rules(op, bounds):
    x, _, a, b, _ = (t.detach() for t in tensors(3, (15,), 4, d_in=20, d_out=18))
    y, u, cu_seqlens = torch.zeros(15, 18, device=DEVICE), torch.ones(15, 4, device=DEVICE), on_device(bounds)
    arguments = {
        "shrink": (x, a, cu_seqlens),
        "expand": (y, u, b, 0.7, cu_seqlens),
        "expand_": (y, u, b, 0.7, cu_seqlens),
        "outer": (x, u, 3, 0.7, cu_seqlens),
    }
    torch.library.opcheck(getattr(torch.ops.aag_hf, f"hyper_lora_{op}").default, arguments[op])


@pytest.mark.parametrize("bounds", [None, [0, 2, 2, 15]])
def test_compiled_output_and_gradients_are_the_same(bounds, triton_on_any_device):
    cu_seqlens = on_device(bounds)

    def both(x, weight, a, b, bias):
        y = hyper_lora_linear(x, weight, a, b, bias, 0.7, cu_seqlens, use_triton=True).relu()
        return hyper_lora_add(y, x, a, b, 0.3, cu_seqlens, use_triton=True)

    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    inputs = tensors(3, (15,), 4, d_in=20, d_out=18)
    expected, actual = both(*inputs), compiled(*inputs)
    torch.testing.assert_close(actual, expected)
    for name, left, right in zip(
        NAMES, torch.autograd.grad(actual.sum(), inputs), torch.autograd.grad(expected.sum(), inputs)
    ):
        torch.testing.assert_close(left, right, msg=lambda text, name=name: f"gradient of {name}: {text}")


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointed_gradients_are_the_same(use_reentrant, triton_on_any_device):
    inputs = tensors(3, (3, 5), 4)
    linear = partial(hyper_lora_linear, use_triton=True)
    expected = torch.autograd.grad(linear(*inputs).square().sum(), inputs)
    checkpoint(linear, *inputs, use_reentrant=use_reentrant).square().sum().backward()
    for tensor, gradient in zip(inputs, expected):
        assert torch.equal(tensor.grad, gradient)


def test_autocast_computes_in_its_type_and_gradients_keep_theirs(triton_on_any_device):
    x, _, a, b, _ = inputs = tensors(3, (3, 5), 4)
    with torch.autocast(DEVICE, torch.float16):
        linear = hyper_lora_linear(*inputs, use_triton=True)
        added = hyper_lora_add(torch.zeros(3, 5, 150, device=DEVICE), x, a, b, use_triton=True)
    assert linear.dtype == added.dtype == torch.float16
    expected = hyper_lora_naive(*inputs)
    torch.testing.assert_close(linear.float(), expected, atol=0.02, rtol=0.02)
    torch.testing.assert_close(added.float(), x @ a @ b, atol=0.02, rtol=0.02)
    for name, left, right in zip(
        NAMES, torch.autograd.grad(linear.float().sum(), inputs), torch.autograd.grad(expected.sum(), inputs)
    ):
        assert left.dtype == torch.float32
        torch.testing.assert_close(left, right, atol=0.05, rtol=0.02, msg=lambda text, name=name: f"{name}: {text}")


def test_a_model_gives_the_same_logits_and_gradients(tiny_llama_dir, triton_on_any_device):
    """What asks for the kernels is the adapter's configuration."""
    ids, features = torch.arange(3, 15, device=DEVICE).view(2, 6), torch.randn(2, 5, device=DEVICE)
    outcomes = []
    for use_triton in (True, False):
        torch.manual_seed(0)
        config = HyperLoraConfig(
            feature_dim=5, r=3, target_modules="all-linear", init_weights=False, use_triton=use_triton
        )
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_llama_dir), config).to(DEVICE)
        with torch.profiler.profile() as profile:
            logits = model(input_ids=ids, features=features).logits
        assert any(event.key == "aag_hf::hyper_lora_expand" for event in profile.key_averages()) == use_triton
        logits.square().mean().backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        outcomes.append((logits, gradients))
    (left, left_gradients), (right, right_gradients) = outcomes
    torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)
    for name, gradient in left_gradients.items():
        torch.testing.assert_close(gradient, right_gradients[name], atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("case", ["padded", "packed"])
def test_an_a_that_all_samples_share(case, triton_on_any_device):
    """As the memories of documents have it: the kernels read it with a stride of zero."""
    samples, rows, bounds = CASES[case]
    cu_seqlens = on_device(bounds)
    x, weight, a, b, bias = tensors(samples, rows, 16)
    a = a[:1].detach().requires_grad_()
    wide = [t.detach().double().requires_grad_() for t in (x, weight, a, b, bias)]
    expected = hyper_lora_naive(*wide, scale=0.7, cu_seqlens=cu_seqlens)
    actual = hyper_lora_linear(x, weight, a, b, bias, 0.7, cu_seqlens, use_triton=True)
    assert_near("output", actual, expected, torch.float32)
    cotangent = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    wanted = torch.autograd.grad(expected, wide, cotangent.double())
    got = torch.autograd.grad(actual, (x, weight, a, b, bias), cotangent)
    for name, left, right in zip(NAMES, got, wanted):
        assert_near(f"gradient of {name}", left, right, torch.float32)
