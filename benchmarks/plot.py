"""Draws the latest ratio of every case in results.csv: `python benchmarks/plot.py`."""

import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent


def latest() -> dict[tuple[str, str, str], list[dict[str, str]]]:
    """The cases of each benchmark, setting and device, in their order; of several runs the last."""
    with (HERE / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = {(r["benchmark"], r["setting"], r["device"], r["case"]): r for r in csv.DictReader(file)}
    groups: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    for (benchmark, setting, device, _), row in rows.items():
        groups.setdefault((benchmark, setting, device), []).append(row)
    return groups


def main() -> None:
    groups = latest()
    heights = [len(rows) + 1.2 for rows in groups.values()]
    figure, all_axes = plt.subplots(
        len(groups), 1, figsize=(9, 0.32 * sum(heights)), height_ratios=heights, squeeze=False, layout="constrained"
    )
    for axes, ((benchmark, setting, device), rows) in zip(all_axes[:, 0], groups.items()):
        ratios = [float(row["ratio"]) for row in rows]
        bars = axes.barh([row["case"] for row in rows], ratios, color="#4878a8")
        axes.bar_label(bars, [f"{ratio:.2f}" for ratio in ratios], padding=3, fontsize=7)
        axes.axvline(1.0, color="black", linewidth=0.8)
        axes.invert_yaxis()
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(f"{benchmark}: {setting}\n× {rows[0]['baseline']}, {device}", fontsize=7, loc="left")
    figure.savefig(HERE / "results.png", dpi=120)


if __name__ == "__main__":
    main()
