"""Results as a table, a plot and the figures of a model card."""

import json
import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from aag_hf.data.jsonl import write_whole
from aag_hf.errors import InputError
from aag_hf.evaluation.scores import METRICS
from aag_hf.markdown import in_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def results_table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """A `rich` table of evaluation results.

    Args:
        rows: Results of [`~aag_hf.evaluation.evaluate_reader`], each with a `name` and, if known,
            `trained_parameters`.
        title: Stands above it.

    The columns are exact match with its standard error, F1, best sub-span EM, trained parameters, and prompt tokens and
    milliseconds per question.
    """
    table = Table(title=Text(title), box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("reader")
    for heading in ("EM %", "F1 %", "span %", "trained", "tokens", "ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        trained = row.get("trained_parameters")
        table.add_row(
            # Names are data, but a rich table would read brackets in them as markup.
            Text(row["name"]),
            Text.assemble((f"{row['exact_match']:.1f}", "bold"), _plus_minus(row)),
            f"{row['f1']:.1f}",
            f"{row['best_subspan_em']:.1f}",
            "–" if trained is None else f"{trained / 1e6:.1f} M",
            f"{row['input_tokens']:.0f}",
            f"{1000 * row['seconds']:.0f}",
        )
    return table


def results_matrix(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """A `rich` table of the exact match of every reader on every data set, with its standard error.

    Args:
        rows: As for `results_table`, each with a `reader` and the name of its `data`.
        title: Stands above it.
    """
    table = Table(title=Text(title), box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("reader")
    data = list(dict.fromkeys(row["data"] for row in rows))
    for name in data:
        table.add_column(Text(name), justify="right")
    cells = {(row["reader"], row["data"]): f"{row['exact_match']:.1f}{_plus_minus(row)}" for row in rows}
    for reader in dict.fromkeys(row["reader"] for row in rows):
        table.add_row(Text(reader), *(cells.get((reader, name), "–") for name in data))
    return table


def results_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table's scores in Markdown, for READMEs and model cards."""
    lines = ["| reader | EM % | F1 % | sub-span EM % |", "|---|---|---|---|"]
    lines += [
        f"| {in_text(row['name'])} | {row['exact_match']:.1f}{_plus_minus(row)} | {row['f1']:.1f} "
        f"| {row['best_subspan_em']:.1f} |"
        for row in rows
    ]
    return "\n".join(lines)


def plot_results(rows: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Exact match of each row with its standard error, as a PNG at `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.45 * len(rows) + 1.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    draw_results(axes, rows)
    axes.set_title(title)
    image = BytesIO()
    figure.savefig(image, dpi=150)
    write_whole(image.getvalue(), path)


def draw_results(axes: "Axes", rows: Sequence[dict[str, Any]]) -> None:
    """One bar per row on `axes`, in the order of the rows. Names may occur more than once."""
    places = range(len(rows))
    colours = ["#b8b8b8" if row.get("control", "none") != "none" else "#3b6fb6" for row in rows]
    bars = axes.barh(
        places,
        [row["exact_match"] for row in rows],
        xerr=[row["exact_match_stderr"] or 0.0 for row in rows],
        color=colours,
        ecolor="#333333",
        capsize=3,
    )
    axes.bar_label(bars, fmt="%.1f", padding=6)
    axes.set_yticks(places, [row["name"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 110)
    axes.set_xlabel("exact match, % (whiskers: one standard error; grey: controls)")
    axes.spines[["top", "right"]].set_visible(False)


def write_json(value: Any, path: Path) -> None:
    """Write `value` to `path`, which appears only when it is complete.

    Raises:
        ValueError: A number is not finite, which JSON cannot express.
    """
    write_whole((json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(), path)


def read_results(path: Path) -> list[dict[str, Any]]:
    """Rows that `write_json` wrote.

    Raises:
        InputError: The file does not hold results.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        rows = None
    if not (isinstance(rows, list) and rows and all(map(_is_result, rows))):
        raise InputError(
            f"{path}: expected the results.json of `aag evaluate`: a list of rows with a name and numbers for "
            "exact_match, exact_match_stderr, f1 and best_subspan_em."
        )
    return rows


def _is_result(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("name"), str):
        return False
    stderr = row.get("exact_match_stderr", "")
    numbers: list[Any] = [row.get(metric) for metric in METRICS] + ([] if stderr is None else [stderr])
    return all(type(number) in (int, float) and math.isfinite(number) for number in numbers)


def _plus_minus(row: dict[str, Any]) -> str:
    """The standard error. There is none if all questions are about one entity."""
    stderr = row["exact_match_stderr"]
    return "" if stderr is None else f" ± {stderr:.1f}"
