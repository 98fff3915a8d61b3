"""The kernel benchmark refuses wrong forms, and its rows say what was measured."""

import csv
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch, tmp_path):
    """`kernel.py` as its folder's scripts import each other, writing to a file of its own."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import kernel
    import measure

    monkeypatch.setattr(measure, "RESULTS", tmp_path / "results.csv")
    yield kernel, measure
    for name in ("kernel", "measure"):
        sys.modules.pop(name)


def rows_of(measure):
    with measure.RESULTS.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_form_is_right_and_gets_a_row(benchmark):
    kernel, measure = benchmark
    setting = kernel.Setting(2, 3, 16, 4, torch.float32)
    kernel.run(setting, "cuda" if torch.cuda.is_available() else "cpu", bandwidth=1e9, rounds=2, calls=1)
    rows = rows_of(measure)
    forms = {kernel.BASE, "gated", "torch path, one A for all", *kernel.forms(setting)}
    for name in ("kernel, forward", "kernel, forward and backward"):
        assert {row["case"] for row in rows if row["benchmark"] == name} == forms
    assert {row["setting"] for row in rows} == {"2 × 3 tokens, 16 → 16, rank 4, float32"}


def test_a_form_that_is_wrong_is_not_timed(benchmark, monkeypatch):
    kernel, measure = benchmark
    monkeypatch.setattr(kernel, "einsum", lambda x, weight, a, b: kernel.bmm_scale_add(x, weight, a, 1.01 * b))
    with pytest.raises(RuntimeError, match="einsum: off by"):
        kernel.run(kernel.Setting(2, 3, 16, 4, torch.float32), "cpu", bandwidth=None, rounds=2, calls=1)
    assert not measure.RESULTS.exists()


def test_a_wrong_gradient_is_found_too(benchmark):
    kernel, _ = benchmark
    plain, _ = kernel.make_inputs(kernel.Setting(2, 3, 16, 4, torch.float32), "cpu")

    def b_gets_no_gradient(x, weight, a, b):
        return kernel.bmm_scale_add(x, weight, a, b.detach()) + 0 * b.sum()

    with pytest.raises(RuntimeError, match=r"tensor \(2, 4, 16\)"):
        kernel.check("form", b_gets_no_gradient, plain, kernel.bmm_scale_add, torch.randn_like(plain[0]))


def test_peak_memory_is_what_a_call_holds_at_once(benchmark):
    _, measure = benchmark
    a_million = torch.ones(250_000, device="cuda" if torch.cuda.is_available() else "cpu")
    cases = {"two at once": lambda: (a_million + 1) * 2, "one": lambda: a_million + 1}
    held = {row["case"]: row["peak_bytes"] for row in measure.compare("memory", cases, "one", rounds=2)}
    assert held["one"] == pytest.approx(1e6, rel=0.01) and held["two at once"] == pytest.approx(2e6, rel=0.01)


def test_the_ratio_is_the_median_of_the_rounds(benchmark, monkeypatch):
    """The machine is ten times as slow in the last of three rounds."""
    _, measure = benchmark
    timed = iter([1, 1, 1, 2, 1, 3, 10, 20])
    monkeypatch.setattr(measure, "_seconds", lambda case, calls: next(timed))
    rows = measure.compare("speed", {"base": list, "other": list}, "base", rounds=3)
    assert [row["ratio"] for row in rows] == [1, 2]


def test_roofline_share_is_of_the_time_beyond_the_base(benchmark):
    _, measure = benchmark
    medians = {"base": 1.0, "form": 3.0}
    assert measure._roofline_share("form", medians, ("base", 0.5)) == 0.25
    assert measure._roofline_share("base", medians, ("base", 0.5)) == ""
    assert measure._roofline_share("form", medians, None) == ""


def test_committed_rows_have_every_column():
    with (BENCHMARKS / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows and all(None not in row and None not in row.values() for row in rows)
