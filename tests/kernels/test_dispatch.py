"""The rule by which a path is chosen."""

import pytest
import torch

from aag_hf.kernels.hyper_lora import hyper_lora_linear
from aag_hf.kernels.hyper_lora.dispatch import choose_path

FITTING = {"device": "cuda", "dtype": torch.bfloat16, "rows": 8192, "widths": (2048, 96), "rank": 8, "use_triton": True}


@pytest.mark.parametrize(
    "also_fitting",
    [{}, {"dtype": torch.float32}, {"dtype": torch.float16}, {"rows": 1}, {"rank": 1}, {"rank": 13}, {"rank": 64}],
)
def test_triton_runs_where_it_was_asked_for_and_fits(also_fitting):
    assert choose_path(**{**FITTING, **also_fitting}) == "triton"


@pytest.mark.parametrize(
    "not_fitting",
    [
        {"use_triton": False},
        {"device": "cpu"},
        {"device": "mps"},
        {"dtype": torch.float64},
        {"dtype": None},
        {"rows": 0},
        {"widths": (2048, 95)},
        {"widths": (2056, 96)},
        {"rank": 63},
        {"rank": 72},
    ],
)
def test_torch_operations_run_everywhere_else(not_fitting):
    assert choose_path(**{**FITTING, **not_fitting}) == "torch"


def test_torch_operations_are_the_default():
    assert choose_path("cuda", torch.bfloat16, 8192, (2048, 96), 8) == "torch"


def test_asking_for_triton_changes_nothing_on_a_cpu():
    x, weight, a, b = torch.randn(3, 5, 7), torch.randn(9, 7), torch.randn(3, 7, 4), torch.randn(3, 4, 9)
    assert torch.equal(hyper_lora_linear(x, weight, a, b, use_triton=True), hyper_lora_linear(x, weight, a, b))
