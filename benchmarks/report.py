"""Tables and a plot of the latest results.csv, for the documentation: `python benchmarks/report.py`."""

import csv
from pathlib import Path

HERE = Path(__file__).parent
TABLES = HERE.parent / "docs" / "benchmarks.md"
PLOT = HERE / "results.png"
INTRODUCTION = """\
# Benchmarks

Written by `benchmarks/report.py` from `benchmarks/results.csv`, to which `make bench` and `make bench-gpu` append.
Cases of a table ran in turns within one process: their ratio to the named baseline is the message, milliseconds are
not. What was expected of each change, what it brought and what did not pay stands in `benchmarks/README.md`.
"""
HEADINGS = ["case", "median ms", "10 % to 90 %", "ratio", "peak MB", "of roofline"]

Group = list[dict[str, str]]


def latest() -> list[Group]:
    """The cases of each benchmark, setting and device, in their order; of several runs all of the last, no other."""
    groups: dict[tuple[str, str, str], Group] = {}
    previous = None
    with (HERE / "results.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            name = row["benchmark"], row["setting"], row["device"]
            if name != previous or row["case"] in {other["case"] for other in groups[name]}:
                groups[name] = []
            groups[name].append(row)
            previous = name
    return list(groups.values())


def markdown(groups: list[Group]) -> str:
    """A table for each group."""
    parts = [INTRODUCTION]
    for rows in groups:
        first = rows[0]
        versions = ", ".join(
            f"{name} {first[name]}" for name in ("torch", "transformers", "peft", "triton") if first[name]
        )
        parts.append(f"\n## {first['benchmark']}: {first['setting']}\n")
        machine = f"{first['device']}, threads: {first['threads']}"
        parts.append(f"Ratio to *{first['baseline']}*. {machine}; {versions}; {first['date']}.\n")
        parts += [_line(HEADINGS), _line(["---"] + ["---:"] * (len(HEADINGS) - 1))]
        parts += [_line(_cells(row)) for row in rows]
    return "\n".join(parts) + "\n"


def _cells(row: dict[str, str]) -> list[str]:
    milliseconds = [f"{float(row[name]):.4g}" for name in ("median_ms", "q10_ms", "q90_ms")]
    peak = f"{float(row['peak_bytes']) / 1e6:.1f}" if row["peak_bytes"] else ""
    spread = f"{milliseconds[1]} to {milliseconds[2]}"
    return [row["case"], milliseconds[0], spread, f"{float(row['ratio']):.2f}", peak, row["roofline_share"] or ""]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def plot(groups: list[Group]) -> None:
    """Bars of all ratios."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    heights = [len(rows) + 1.2 for rows in groups]
    figure, all_axes = plt.subplots(
        len(groups), 1, figsize=(9, 0.32 * sum(heights)), height_ratios=heights, squeeze=False, layout="constrained"
    )
    for axes, rows in zip(all_axes[:, 0], groups):
        first = rows[0]
        ratios = [float(row["ratio"]) for row in rows]
        bars = axes.barh([row["case"] for row in rows], ratios, color="#4878a8")
        axes.bar_label(bars, [f"{ratio:.2f}" for ratio in ratios], padding=3, fontsize=7)
        axes.axvline(1.0, color="black", linewidth=0.8)
        axes.invert_yaxis()
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
        title = f"{first['benchmark']}: {first['setting']}\n× {first['baseline']}, {first['device']}"
        axes.set_title(title, fontsize=7, loc="left")
    figure.savefig(PLOT, dpi=120)


if __name__ == "__main__":
    TABLES.write_text(markdown(latest()), encoding="utf-8")
    plot(latest())
