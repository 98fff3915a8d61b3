"""``dtype: auto`` is the type of weights that is fast on the machine."""

import pytest
import torch

from aag_hf.cli.dtypes import chosen_dtype
from aag_hf.cli.options import LoadingOptions
from aag_hf.errors import InputError


@pytest.mark.parametrize(
    ("instructions", "dtype"),
    [({"avx512_bf16": False}, "float32"), ({"avx512_bf16": True}, "bfloat16"), ({"bf16": True}, "bfloat16")],
)
def test_a_cpu_computes_in_bfloat16_where_it_has_instructions_for_it(monkeypatch, instructions, dtype):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    # What is written down is the type itself, so that a run belongs to it.
    assert LoadingOptions(dtype="auto").loading_settings()["dtype"] == dtype


def test_a_named_type_stays():
    assert chosen_dtype("float16") == "float16"
    with pytest.raises(InputError, match="dtype must be one of float32, bfloat16, float16, auto, got 'int8'"):
        chosen_dtype("int8")
