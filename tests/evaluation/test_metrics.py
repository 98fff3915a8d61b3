import json
import os
from pathlib import Path

import pytest

from aag_hf.data.answers import normalize_answer, tokenize
from aag_hf.evaluation.metrics import best_subspan_em, exact_match, f1_score, has_answer

DEFAULT_GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "golden"


@pytest.fixture(scope="module")
def golden():
    path = Path(os.environ.get("AAG_GOLDEN", DEFAULT_GOLDEN)) / "metrics.json"
    if not path.is_file():
        pytest.skip(f"no golden vectors at {path}: set AAG_GOLDEN to their folder")
    return json.loads(path.read_text(encoding="utf-8"))


def test_scores_equal_every_golden_pair(golden):
    assert golden["pairs"]
    for case in golden["pairs"]:
        prediction, answers = case["prediction"], case["answers"]
        assert normalize_answer(prediction) == case["normalized_prediction"], case
        assert [normalize_answer(answer) for answer in answers] == case["normalized_answers"], case
        assert exact_match(prediction, answers) is case["exact_match"], case
        assert [exact_match(prediction, [answer]) for answer in answers] == case["per_answer_em"], case
        assert best_subspan_em(prediction, answers) is bool(case["best_subspan_em"]), case
        assert f1_score(prediction, answers) == pytest.approx(case["f1"]), case
        assert [f1_score(prediction, [answer]) for answer in answers] == pytest.approx(case["per_answer_f1"]), case
        assert exact_match(case["first_line"], answers) is case["first_line_exact_match"], case
        assert best_subspan_em(case["first_line"], answers) is bool(case["first_line_best_subspan_em"]), case


def test_passage_match_equals_every_golden_case(golden):
    assert golden["has_answer"]
    for case in golden["has_answer"]:
        assert has_answer(case["text"], case["answers"]) is case["has_answer"], case
    for row, hits in zip(golden["retrieval"]["data"], golden["retrieval"]["hits"], strict=True):
        assert [has_answer(passage["text"] or "", row["answers"]) for passage in row["ctxs"]] == hits


def test_tokens_equal_every_golden_case_up_to_composition(golden):
    for case in golden["has_answer"]:
        assert tokenize(case["text"]) == [part for token in case["tokens"] for part in tokenize(token)], case


def test_an_answer_that_normalises_to_nothing_does_not_match_every_text():
    assert not best_subspan_em("Paris", ["the"])
    assert not best_subspan_em("Paris", ["..."])
    assert best_subspan_em("the", ["..."])
    assert best_subspan_em("in Paris", ["the", "Paris"])


@pytest.mark.parametrize("score", [exact_match, f1_score, best_subspan_em])
@pytest.mark.parametrize("answers", [[], "Paris"])
def test_answers_must_be_a_list_with_entries(score, answers):
    with pytest.raises(ValueError, match="expected a list of one or more"):
        score("Paris", answers)
