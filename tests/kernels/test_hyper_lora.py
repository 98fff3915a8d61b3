"""The per-sample LoRA matmul against its formula in float64, output and each gradient by name."""

import pytest
import torch

from aag_hf.kernels.hyper_lora import (
    gated_lora_linear,
    hyper_lora_add,
    hyper_lora_linear,
    hyper_lora_naive,
)

NAMES = ("x", "weight", "a", "b", "bias")
CASES = {
    "padded": ((3, 5), None),
    "one token": ((3, 1), None),
    "flat rows": ((6,), None),
    "passages": ((12, 5), None),
    "packed": ((11,), [0, 4, 5, 11]),
    "packed with an empty sample": ((7,), [0, 3, 3, 7]),
}


def tensors(rows, r=4, d_in=7, d_out=9, samples=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    shapes = [(*rows, d_in), (d_out, d_in), (samples, d_in, r), (samples, r, d_out), (d_out,)]
    return [torch.randn(shape, generator=g, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("r", [1, 3, 8])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("with_bias", [True, False])
def test_output_and_gradients_equal_the_formula(case, r, with_bias):
    rows, bounds = CASES[case]
    cu_seqlens = None if bounds is None else torch.tensor(bounds, dtype=torch.int32)
    inputs = tensors(rows, r)
    inputs = inputs if with_bias else inputs[:4]
    expected = hyper_lora_naive(*inputs, scale=0.7, cu_seqlens=cu_seqlens)
    actual = hyper_lora_linear(*inputs, scale=0.7, cu_seqlens=cu_seqlens)
    torch.testing.assert_close(actual, expected)
    cotangent = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, inputs, cotangent)
    got = torch.autograd.grad(actual, inputs, cotangent)
    for name, left, right in zip(NAMES, got, wanted):
        torch.testing.assert_close(left, right, msg=lambda text, name=name: f"gradient of {name}: {text}")


def test_strided_adapters_and_inputs():
    x, weight, a, b, bias = tensors((3, 5))
    a_strided, b_strided = (
        a.transpose(1, 2).contiguous().transpose(1, 2),
        b.transpose(1, 2).contiguous().transpose(1, 2),
    )
    x_strided = x.transpose(0, 1).contiguous().transpose(0, 1)
    torch.testing.assert_close(
        hyper_lora_linear(x_strided, weight, a_strided, b_strided, bias), hyper_lora_naive(x, weight, a, b, bias)
    )


def test_zero_b_leaves_a_bf16_output_bit_for_bit():
    x, weight, a, b, bias = (t.detach().to(torch.bfloat16) for t in tensors((3, 5)))
    base = torch.nn.functional.linear(x, weight, bias)
    assert torch.equal(hyper_lora_add(base, x, a.float(), torch.zeros_like(b).float()), base)


@pytest.mark.parametrize("rows_per_sample", [1, 8, 9])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_single_precision_adapters_beside_half_precision_rows(rows_per_sample, dtype):
    """Up to 8 rows the adapter's part is not rounded on its way: it differs from the formula in its last digit only."""
    x, _, a, b, _ = (t.detach().float() for t in tensors((3, rows_per_sample), d_in=64))
    x, y = x.to(dtype), torch.zeros(3, rows_per_sample, 9, dtype=dtype)
    expected = hyper_lora_naive(x.double(), torch.zeros(9, 64).double(), a.double(), b.double(), scale=0.7)
    actual = hyper_lora_add(y, x, a, b, scale=0.7)
    assert actual.dtype == dtype
    assert torch.equal(actual, expected.to(dtype)) == (rows_per_sample <= 8)
    torch.testing.assert_close(actual.double(), expected, rtol=0.05, atol=0.5)


def test_double_precision_rows_keep_theirs_beside_single_precision_adapters():
    x, _, a, b, _ = (t.detach() for t in tensors((3, 1)))
    y, a, b = torch.full((3, 1, 9), 1.0 + 2.0**-40, dtype=torch.float64), a.float(), b.float()
    expected = y + 0.7 * (x @ a.double()) @ b.double()
    torch.testing.assert_close(hyper_lora_add(y, x, a, b, scale=0.7), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("case", ["padded", "one token", "passages"])
def test_only_the_form_in_place_takes_the_memory_of_y(case, dtype):
    x, weight, a, b, _ = (t.detach() for t in tensors(CASES[case][0]))
    y = torch.nn.functional.linear(x, weight).to(dtype)
    x, before = x.to(dtype), y.clone()
    a, b = (t if dtype == torch.float64 else t.float() for t in (a, b))
    expected = hyper_lora_add(y, x, a, b, scale=0.7)
    assert torch.equal(y, before) and not torch.equal(expected, before)
    strided = y.transpose(0, 1).clone(memory_format=torch.contiguous_format).transpose(0, 1)
    assert torch.equal(hyper_lora_add(strided, x, a, b, scale=0.7, in_place=True), expected)
    result = hyper_lora_add(y, x, a, b, scale=0.7, in_place=True)
    assert torch.equal(result, expected) and result.data_ptr() == y.data_ptr()


def test_each_sample_sees_its_own_adapter_only():
    x, weight, a, b, _ = (t.detach() for t in tensors((3, 5)))
    changed = a.clone()
    changed[1] += 1
    difference = (hyper_lora_linear(x, weight, changed, b) - hyper_lora_linear(x, weight, a, b)).abs().amax(dim=(1, 2))
    assert (difference > 0).tolist() == [False, True, False]


@pytest.mark.parametrize("bounds", [None, [0, 4, 5, 11]])
def test_gated_form_equals_the_adapters_it_never_builds(bounds):
    g = torch.Generator().manual_seed(0)
    samples, m, r, d_in, d_out = 3, 5, 2, 7, 9
    rows = (samples, 4) if bounds is None else (11,)
    shapes = [(*rows, d_in), (d_out, d_in), (samples, m), (d_in, r, m + 1), (r, m + 1, d_out)]
    inputs = [torch.randn(s, generator=g, dtype=torch.float64, requires_grad=True) for s in shapes]
    x, weight, h, w2a, w2b = inputs
    cu_seqlens = None if bounds is None else torch.tensor(bounds, dtype=torch.int32)
    h1 = torch.cat([h, torch.ones(samples, 1, dtype=h.dtype)], dim=1)
    a, b = torch.einsum("drm,gm->gdr", w2a, h1), torch.einsum("gm,rmo->gro", h1, w2b)
    expected = hyper_lora_naive(x, weight, a, b, scale=0.3, cu_seqlens=cu_seqlens)
    actual = gated_lora_linear(x, weight, h, w2a, w2b, scale=0.3, cu_seqlens=cu_seqlens)
    torch.testing.assert_close(actual, expected)
    cotangent = torch.randn_like(expected)
    for left, right in zip(
        torch.autograd.grad(actual, inputs, cotangent), torch.autograd.grad(expected, inputs, cotangent)
    ):
        torch.testing.assert_close(left, right)


def test_autocast_computes_the_adapter_in_the_autocast_type():
    inputs = [t.detach().float() for t in tensors((3, 5))]
    with torch.autocast("cpu", torch.bfloat16):
        y = hyper_lora_linear(*inputs)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), hyper_lora_naive(*inputs), atol=0.3, rtol=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(4, 5, 7)}, "4 rows for 3 adapters"),
        ({"weight": torch.zeros(9, 8)}, "does not fit x"),
        ({"b": torch.zeros(3, 5, 9)}, "do not fit"),
        ({"x": torch.zeros(11, 7), "cu_seqlens": torch.tensor([0, 4, 11])}, "int32"),
        ({"x": torch.zeros(11, 7), "cu_seqlens": torch.tensor([0, 11], dtype=torch.int32)}, "packed rows need"),
    ],
)
def test_shapes_that_do_not_fit_are_named(change, message):
    arguments = dict(zip(NAMES, (t.detach().float() for t in tensors((3, 5)))), cu_seqlens=None)
    with pytest.raises(ValueError, match=message):
        hyper_lora_linear(**{**arguments, **change})


@pytest.mark.parametrize("shared", ["a", "b"])
@pytest.mark.parametrize("case", CASES)
def test_a_matrix_that_all_samples_share(case, shared):
    rows, bounds = CASES[case]
    cu_seqlens = None if bounds is None else torch.tensor(bounds, dtype=torch.int32)
    inputs = tensors(rows)
    which = NAMES.index(shared)
    inputs[which] = inputs[which][:1].detach().requires_grad_()
    expected = hyper_lora_naive(*inputs, scale=0.7, cu_seqlens=cu_seqlens)
    actual = hyper_lora_linear(*inputs, scale=0.7, cu_seqlens=cu_seqlens)
    torch.testing.assert_close(actual, expected)
    cotangent = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, inputs, cotangent)
    for name, left, right in zip(NAMES, torch.autograd.grad(actual, inputs, cotangent), wanted):
        torch.testing.assert_close(left, right, msg=lambda text, name=name: f"gradient of {name}: {text}")
