"""What a training run logged, as a plot."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aag_hf.data.jsonl import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What a run took, once for the whole run or for an evaluation, and no curve.
_NO_CURVES = ("epoch", "step", "total_flos", "train_loss", "runtime", "per_second")
_EVALUATION = "eval_"


def curves(log_history: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """The curves of each figure: steps and values, of ``"training"`` and of ``"evaluation"``.

    Args:
        log_history: As the Trainer keeps it, `trainer.state.log_history`.
    """
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for entry in log_history:
        for key, value in entry.items():
            if key.endswith(_NO_CURVES) or not isinstance(value, int | float):
                continue
            figure = found.setdefault(key.removeprefix(_EVALUATION), {})
            when = "evaluation" if key.startswith(_EVALUATION) else "training"
            figure.setdefault(when, []).append((entry["step"], value))
    return found


def plot_curves(log_history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A panel for each figure, as a PNG at `path`. Nothing if nothing was logged.

    Args:
        log_history: As for `curves`.
        path: Where to.
    """
    found = curves(log_history)
    if not found:
        return
    figure = _drawn(found)
    image = BytesIO()
    figure.savefig(image, dpi=120)
    write_whole(image.getvalue(), path)


def _drawn(found: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.6 * len(found) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(found), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, lines) in zip(panels, found.items()):
        for when, points in lines.items():
            colour = "#3b6fb6" if when == "training" else "#c1663b"
            # Evaluations are few, and a line through one point shows nothing.
            marker = "o" if when == "evaluation" or len(points) == 1 else None
            axes.plot(*zip(*points), marker=marker, markersize=3, linewidth=1, color=colour, label=when)
        axes.set_title(name.replace("_", " "), fontsize=9, loc="left")
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        if len(lines) > 1:
            axes.legend(fontsize=7, frameon=False)
    panels[-1].set_xlabel("step", fontsize=8)
    return figure
