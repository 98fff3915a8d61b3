"""Selective accuracy and calibration, by hand."""

import pytest

from aag_hf.evaluation.confidence import accuracy_at, calibration_error, risk_coverage
from aag_hf.evaluation.scores import summarise

SCORES = [-0.1, -3.0, -0.2, -2.0, -0.15]
CORRECT = [1, 0, 1, 1, 0]


def test_the_surest_answers_count_first():
    assert accuracy_at(0.5, SCORES, CORRECT) == pytest.approx(2 / 3)
    assert accuracy_at(1.0, SCORES, CORRECT) == pytest.approx(3 / 5)
    coverages, risks = risk_coverage(SCORES, CORRECT)
    assert coverages == [0.2, 0.4, 0.6, 0.8, 1.0] and risks == pytest.approx([0, 1 / 2, 1 / 3, 1 / 4, 2 / 5])


def test_the_calibration_error_is_the_mean_distance_of_probability_and_accuracy_per_bin():
    # exp: 0.905 (1), 0.050 (0), 0.819 (1), 0.135 (1), 0.861 (0): the third and the fifth share a bin.
    expected = ((1 - 0.904837) + 0.049787 + (1 - 0.135335) + abs(0.818731 + 0.860708 - 1)) / 5
    assert calibration_error(SCORES, CORRECT) == pytest.approx(expected, abs=1e-6)
    assert calibration_error([0.0, 0.0], [1, 1]) == 0


def test_a_summary_has_both_where_answers_have_scores():
    rows = [
        {"id": str(i), "exact_match": float(c), "f1": 0.0, "best_subspan_em": 0.0, "score": s}
        for i, (s, c) in enumerate(zip(SCORES, CORRECT))
    ]
    assert summarise(rows)["exact_match_at_half"] == pytest.approx(200 / 3)
    del rows[0]["score"]
    assert "calibration_error" not in summarise(rows)
