"""Side-by-side timing: every case runs once a round, so that all of them meet the same machine."""

import csv
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

RESULTS = Path(__file__).parent / "results.csv"


def compare(
    benchmark: str,
    cases: dict[str, Callable[[], Any]],
    baseline: str,
    rounds: int = 5,
    calls: int = 1,
    setting: str = "",
    roofline: tuple[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Time `cases` against `baseline`, print the table and append it to ``results.csv``.

    Args:
        benchmark: What is measured.
        cases: What to call, by name.
        baseline: The case that ratios are taken to.
        rounds: Timed rounds, after one that is not timed and one that measures memory.
        calls: Calls of a case in a row in each round; times are those of one call.
        setting: Shapes and dtypes, in words.
        roofline: A case that does part of the work of all others, and the seconds in which the memory's bandwidth would
            let the rest of it be done: the share of these in what a case takes longer is its roofline share.

    Returns:
        One row per case: median, 10 % and 90 % quantile in milliseconds, the ratio to the baseline (the median of those
        of each round, which a machine that slows down for a while disturbs less than a ratio of medians), the bytes
        that a call allocates at its peak, and the roofline share.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for case in cases.values():
        _seconds(case, calls)
    peaks = {name: _peak_bytes(case) for name, case in cases.items()}
    for _ in range(rounds):
        for name, case in cases.items():
            seconds[name].append(_seconds(case, calls))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    rows = [
        {
            "date": date.today().isoformat(),
            "benchmark": benchmark,
            "setting": setting,
            "case": name,
            "baseline": baseline,
            "median_ms": round(1000 * medians[name], 4),
            "q10_ms": round(1000 * statistics.quantiles(values, n=10)[0], 4),
            "q90_ms": round(1000 * statistics.quantiles(values, n=10)[-1], 4),
            "ratio": round(statistics.median(a / b for a, b in zip(values, seconds[baseline])), 3),
            **machine(),
            "peak_bytes": peaks[name],
            "roofline_share": _roofline_share(name, medians, roofline),
        }
        for name, values in seconds.items()
    ]
    _print(benchmark, setting, rows)
    _append(rows)
    return rows


def copy_bandwidth(size: int = 2**30, rounds: int = 20) -> float:
    """Bytes a second that a copy within the GPU's memory reads and writes."""
    source = torch.ones(size, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * size / statistics.median(_seconds(lambda: target.copy_(source), 1) for _ in range(rounds))


def _seconds(case: Callable[[], Any], calls: int) -> float:
    _wait()
    start = time.perf_counter()
    for _ in range(calls):
        case()
    _wait()
    return (time.perf_counter() - start) / calls


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _peak_bytes(case: Callable[[], Any]) -> int:
    """The most memory that one call holds beyond what was held before it."""
    if torch.cuda.is_available():
        _wait()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        case()
        _wait()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        case()
    changes = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for change in sorted(changes, key=lambda e: e.start_ns()):
        held += change.nbytes()
        peak = max(peak, held)
    return peak


def _roofline_share(name: str, medians: dict[str, float], roofline: tuple[str, float] | None) -> float | str:
    """Empty where it is not defined: a case within the noise of the one below it has no time of its own."""
    if roofline is None or medians[name] <= medians[roofline[0]]:
        return ""
    return round(roofline[1] / (medians[name] - medians[roofline[0]]), 3)


def machine() -> dict[str, Any]:
    """Where a benchmark runs: device, threads and versions."""
    on_gpu = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if on_gpu else _processor(),
        "threads": torch.get_num_threads(),
        **{name: _version(name) for name in ("torch", "transformers", "peft", "triton")},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    """The processor's name and, since bfloat16 depends on it, whether it has AMX."""
    described = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in described.splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()} ({'AMX' if 'amx_bf16' in described else 'no AMX'})"


def _print(benchmark: str, setting: str, rows: list[dict[str, Any]]) -> None:
    headings = ["median ms", "10 %", "90 %", f"× {rows[0]['baseline']}", "peak MB", "of roofline"]
    width = max(len(row["case"]) for row in rows)
    print(f"\n{benchmark}, {setting}" if setting else f"\n{benchmark}")
    print("  ".join(["case".ljust(width), *(heading.rjust(9) for heading in headings)]))
    for row in rows:
        figures = [f"{row['median_ms']:.3f}", f"{row['q10_ms']:.3f}", f"{row['q90_ms']:.3f}", f"{row['ratio']:.2f}"]
        figures += [f"{row['peak_bytes'] / 1e6:.1f}", str(row["roofline_share"])]
        aligned = (figure.rjust(max(len(heading), 9)) for figure, heading in zip(figures, headings))
        print("  ".join([row["case"].ljust(width), *aligned]), flush=True)


def _append(rows: list[dict[str, Any]]) -> None:
    exists = RESULTS.exists()
    with RESULTS.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        if not exists:
            writer.writeheader()
        writer.writerows(rows)
