"""Side-by-side timing: every case runs once a round, so that all of them meet the same machine."""

import csv
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results.csv"


def compare(
    benchmark: str, cases: dict[str, Callable[[], Any]], baseline: str, rounds: int = 5, setting: str = ""
) -> list[dict[str, Any]]:
    """Time `cases` against `baseline`, print the table and append it to ``results.csv``.

    Args:
        benchmark: What is measured.
        cases: What to call, by name.
        baseline: The case that ratios are taken to.
        rounds: Timed calls of each case, after one that is not timed.
        setting: Shapes and dtypes, in words.

    Returns:
        A row a case: median, 10 % and 90 % quantile in milliseconds, and ratio of medians to the baseline's.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, case in cases.items():
            taken = _seconds(case)
            if number:
                seconds[name].append(taken)
    reference = statistics.median(seconds[baseline])
    rows = [
        {
            "date": date.today().isoformat(),
            "benchmark": benchmark,
            "setting": setting,
            "case": name,
            "baseline": baseline,
            "median_ms": round(1000 * statistics.median(values), 2),
            "q10_ms": round(1000 * statistics.quantiles(values, n=10)[0], 2),
            "q90_ms": round(1000 * statistics.quantiles(values, n=10)[-1], 2),
            "ratio": round(statistics.median(values) / reference, 3),
            **_machine(),
        }
        for name, values in seconds.items()
    ]
    _print(benchmark, setting, rows)
    _append(rows)
    return rows


def _seconds(case: Callable[[], Any]) -> float:
    _wait()
    start = time.perf_counter()
    case()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _machine() -> dict[str, Any]:
    on_gpu = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if on_gpu else _processor(),
        "threads": torch.get_num_threads(),
        **{name: version(name) for name in ("torch", "transformers", "peft")},
    }


def _processor() -> str:
    """The processor's name and, since bfloat16 depends on it, whether it has AMX."""
    described = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in described.splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()} ({'AMX' if 'amx_bf16' in described else 'no AMX'})"


def _print(benchmark: str, setting: str, rows: list[dict[str, Any]]) -> None:
    table = Table(title=f"{benchmark}, {setting}" if setting else benchmark, title_justify="left")
    table.add_column("case")
    for heading in ("median ms", "10 %", "90 %", f"× {rows[0]['baseline']}"):
        table.add_column(heading, justify="right")
    for row in rows:
        figures = [row["median_ms"], row["q10_ms"], row["q90_ms"]]
        table.add_row(row["case"], *(f"{figure:.1f}" for figure in figures), f"{row['ratio']:.2f}")
    Console().print(table)


def _append(rows: list[dict[str, Any]]) -> None:
    exists = RESULTS.exists()
    with RESULTS.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        if not exists:
            writer.writeheader()
        writer.writerows(rows)
