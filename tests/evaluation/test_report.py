"""Results as a reader sees them."""

from matplotlib.figure import Figure

from aag_hf.evaluation.report import draw_results


def test_rows_of_the_same_name_get_a_bar_each():
    scores = {"HyperLoRA": (40.0, "none"), "AAG": (45.0, "none")}
    rows = []
    for name, (score, control) in scores.items():
        rows.append({"name": name, "exact_match": score, "exact_match_stderr": 1.0, "control": control})
        rows.append({"name": "… shuffled", "exact_match": score / 2, "exact_match_stderr": 1.0, "control": "shuffled"})
    axes = Figure().subplots()
    draw_results(axes, rows)
    assert [bar.get_width() for bar in axes.patches] == [40.0, 20.0, 45.0, 22.5]
    assert len({bar.get_y() for bar in axes.patches}) == 4
    assert [label.get_text() for label in axes.get_yticklabels()] == [row["name"] for row in rows]
