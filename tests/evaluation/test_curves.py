"""Training curves: every figure that a Trainer logs is on the plot."""

from aag_hf.evaluation.curves import _drawn, curves, plot_curves

HISTORY = [
    {"loss": 2.0, "distillation_kl": 0.5, "grad_norm": 3.0, "epoch": 0.5, "step": 1},
    {"loss": 1.0, "distillation_kl": 0.25, "grad_norm": 2.0, "epoch": 1.0, "step": 2},
    {"eval_loss": 1.5, "eval_runtime": 0.1, "eval_samples_per_second": 9.0, "epoch": 1.0, "step": 2},
    {"train_runtime": 1.0, "train_loss": 1.5, "total_flos": 7.0, "epoch": 1.0, "step": 2},
]


def test_each_figure_has_its_curve_and_an_evaluation_stands_beside_it():
    assert curves(HISTORY) == {
        "loss": {"training": [(1, 2.0), (2, 1.0)], "evaluation": [(2, 1.5)]},
        "distillation_kl": {"training": [(1, 0.5), (2, 0.25)]},
        "grad_norm": {"training": [(1, 3.0), (2, 2.0)]},
    }
    panels = _drawn(curves(HISTORY)).axes
    assert [axes.get_title(loc="left") for axes in panels] == ["loss", "distillation kl", "grad norm"]
    assert [[list(line.get_ydata()) for line in axes.lines] for axes in panels] == [
        [[2.0, 1.0], [1.5]],
        [[0.5, 0.25]],
        [[3.0, 2.0]],
    ]


def test_the_plot_is_a_png_and_a_run_that_logged_nothing_has_none(tmp_path):
    plot_curves(HISTORY, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    plot_curves(HISTORY[3:], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
