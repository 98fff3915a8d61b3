import json
import os
import unicodedata
from pathlib import Path

import pytest

from aag_hf.data.answers import normalize_answer, tokenize
from aag_hf.evaluation.metrics import best_subspan_em, exact_match, f1_score, has_answer
from aag_hf.evaluation.scores import score_predictions

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
        if "" in case["normalized_answers"]:
            # SQuAD's script takes silence for "the" and "..." for "!!!".
            continue
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


@pytest.mark.parametrize(
    ("prediction", "answer", "equal", "inside"),
    [
        ("A", "A", True, True),
        ("a", "A", True, True),
        ("The The", "the the", True, True),
        ("!!!", "!!!", True, True),
        ("vitamin A", "A", False, True),
        ("Paris", "the", False, False),
        ("Paris", "...", False, False),
        ("bananas", "A", False, False),
        ("The", "A", False, False),
        ("...", "!!!", False, False),
        ("", "A", False, False),
        ("", "!!!", False, False),
        (" ", " ", False, False),
    ],
)
def test_an_answer_that_normalises_to_nothing_is_compared_as_it_stands(prediction, answer, equal, inside):
    assert exact_match(prediction, [answer]) is equal
    assert best_subspan_em(prediction, [answer]) is inside
    assert f1_score(prediction, [answer]) >= float(equal) and f1_score(prediction, [answer, "x"]) <= 1.0


SAME = [
    ("Beyoncé", unicodedata.normalize("NFD", "Beyoncé")),
    ("Ｆｉｊｉ １９７０", "Fiji 1970"),
    ("ＡＢＢＡ", "abba"),
    ("ガス", "ｶﾞｽ"),
    ("東京\u3000都", "東京 都"),
    ("ÉLAN", "élan"),
]


@pytest.mark.parametrize(("one", "other"), [*SAME, *((b, a) for a, b in SAME)])
def test_composition_case_and_width_make_no_difference(one, other):
    assert exact_match(one, [other]) and f1_score(one, [other]) == 1.0
    assert best_subspan_em(f"in {one} now", [other])
    assert has_answer(f"in {one} now", [other])


@pytest.mark.parametrize("score", [exact_match, f1_score, best_subspan_em])
@pytest.mark.parametrize("answers", [[], "Paris"])
def test_answers_must_be_a_list_with_entries(score, answers):
    with pytest.raises(ValueError, match="expected a list of one or more"):
        score("Paris", answers)


def test_answers_that_are_expressions_match_from_the_beginning_of_a_prediction():
    records = [
        {"id": f"{i}", "question": "How hot?", "answers": [r"(5,?778|5,?800)\s*K", "six thousand"]} for i in range(4)
    ]
    rows = score_predictions(records, ["5778 k", "about 5,800 K", "5,778", " Six thousand degrees"], "regex")
    assert [row["exact_match"] for row in rows] == [row["f1"] for row in rows] == [1.0, 0.0, 0.0, 1.0]
    assert [row["best_subspan_em"] for row in rows] == [1.0, 1.0, 0.0, 1.0]
