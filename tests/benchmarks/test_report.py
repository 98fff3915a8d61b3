"""The documentation's tables are those of results.csv."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import report

    yield report
    sys.modules.pop("report")


def test_the_documentation_has_the_latest_tables(report):
    assert report.TABLES.read_text(encoding="utf-8") == report.markdown(report.latest())


def test_of_several_runs_the_last_is_shown_with_what_it_is_compared_to(report, monkeypatch, tmp_path):
    names = ["date", "benchmark", "setting", "case", "baseline", "median_ms", "q10_ms", "q90_ms", "ratio", "device"]
    names += ["threads", "torch", "transformers", "peft", "triton", "peak_bytes", "roofline_share"]
    shared = "kernel,8 tokens,{case},base,{ms},1.0,3.0,{ratio},a chip,2,2.13,5.23,0.21,,2500000,"
    first = [("2026-01-01", "base", 2.0, 1.0), ("2026-01-01", "ours", 9.0, 4.5), ("2026-01-01", "given up", 4.0, 2.0)]
    runs = [*first, ("2026-01-02", "base", 2.0, 1.0), ("2026-01-02", "ours", 3.0, 1.5)]
    lines = [f"{date},{shared.format(case=case, ms=ms, ratio=ratio)}" for date, case, ms, ratio in runs]
    monkeypatch.setattr(report, "HERE", tmp_path)
    (tmp_path / "results.csv").write_text("\n".join([",".join(names), *lines]) + "\n")
    (group,) = report.latest()
    assert [row["case"] for row in group] == ["base", "ours"]
    text = report.markdown([group])
    assert "| ours | 3 | 1 to 3 | 1.50 | 2.5 |  |" in text and "4.50" not in text and "given up" not in text
    assert "## kernel: 8 tokens" in text and "Ratio to *base*. a chip, threads: 2; torch 2.13" in text
