"""Paired comparison of two readers: differences with their error, McNemar's test, and the questions behind them."""

import pytest

from aag_hf.cli.main import main
from aag_hf.data.jsonl import write_rows
from aag_hf.errors import InputError
from aag_hf.evaluation.comparison import compare_predictions, differing_questions, exact_mcnemar
from aag_hf.evaluation.scores import score_predictions

RECORDS = [{"id": f"q{i}", "question": f"what is {i}?", "answers": [f"n{i}"]} for i in range(20)]


def answered(right, records=RECORDS):
    return score_predictions(records, [f"n{i}" if i in right else "wrong" for i in range(len(records))])


def test_the_difference_and_its_error_are_those_of_the_pairs():
    compared = compare_predictions(answered(range(10)), answered(range(5, 18)))
    matched = compared["exact_match"]
    assert (matched["first"], matched["second"], matched["difference"]) == (50.0, 65.0, pytest.approx(15.0))
    pairs = [-100.0] * 5 + [0.0] * 5 + [100.0] * 8 + [0.0] * 2
    variance = sum((value - 15.0) ** 2 for value in pairs) / 19
    assert matched["stderr"] == pytest.approx((variance / 20) ** 0.5)
    assert (compared["count"], compared["only_first"], compared["only_second"]) == (20, 5, 8)
    assert compared["mcnemar_p"] == pytest.approx(exact_mcnemar(5, 8))


def test_questions_about_one_entity_count_as_one_observation():
    records = [record | {"entity": record["id"]} for record in RECORDS]
    once = compare_predictions(answered(range(10), records), answered(range(5, 18), records))
    fivefold = [record | {"id": f"{record['id']}-{copy}"} for copy in range(5) for record in records]
    first, second = (answered({i + 20 * c for c in range(5) for i in r}, fivefold) for r in (range(10), range(5, 18)))
    for rows, known in ((first, range(10)), (second, range(5, 18))):
        for place, row in enumerate(rows):
            row["exact_match"] = float(place % 20 in known)
    again = compare_predictions(first, second)
    assert again["exact_match"]["stderr"] == pytest.approx(once["exact_match"]["stderr"])


@pytest.mark.parametrize(
    ("only_first", "only_second", "probability"),
    [(0, 0, 1.0), (5, 5, 1.0), (0, 5, 0.0625), (5, 0, 0.0625), (1, 9, 22 / 1024), (2, 3, 1.0)],
)
def test_mcnemar_is_the_two_sided_binomial_test(only_first, only_second, probability):
    assert exact_mcnemar(only_first, only_second) == pytest.approx(probability)


def test_mcnemar_of_thousands_of_questions_is_a_number():
    assert 0 < exact_mcnemar(4000, 4400) < 1e-4


def test_differing_questions_come_in_turn_from_both_sides():
    pairs = differing_questions(answered(range(10)), answered(range(8, 20)), most=10)
    assert [one["id"] for one, _ in pairs] == ["q0", "q10", "q1", "q11", "q2", "q12", "q3", "q13", "q4", "q14"]
    assert differing_questions(answered(range(9)), answered(range(9))) == []


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (RECORDS[:19], "1 differ: only one answered q19"),
        ([RECORDS[0] | {"question": "?"}, *RECORDS[1:]], "q0 is another question or has other answers"),
        ([RECORDS[0] | {"answers": ["n0", "n1"]}, *RECORDS[1:]], "q0 is another question or has other answers"),
        (RECORDS + RECORDS, "40 rows about 20 questions"),
    ],
)
def test_readers_that_were_asked_other_questions_are_not_compared(records, message):
    with pytest.raises(InputError, match=message):
        compare_predictions(answered(range(5)), answered(range(5), records))


def test_the_command_shows_both_answers_to_questions_they_differ_on(tmp_path, capsys):
    for name, right in (("old", range(3)), ("new", range(1, 20))):
        write_rows([{"reader": name} | row for row in answered(right)], tmp_path / name / "predictions.jsonl")
    assert main(["compare", str(tmp_path / "old"), str(tmp_path / "new" / "predictions.jsonl")]) == 0
    printed = capsys.readouterr().out
    assert "A: old\nB: new\n" in printed and "exact_match" in printed and "+80.0 ± 11.7" in printed
    assert "Right in A alone 1, in B alone 17: McNemar's test p = 0.000145" in printed
    assert "what is 0? (n0)\n  A ✓ n0\n  B ✗ wrong\nwhat is 3? (n3)\n  A ✗ wrong\n  B ✓ n3\n" in printed
    assert printed.count("\n  B ") == 10


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "line 3: a row before it is about 'q0' by 'old' too"),
        ({"exact_match": 5}, "line 3: expected a row of the predictions.jsonl"),
        ({"f1": -0.1}, "line 3: expected a row"),
        ({"answers": [1]}, "line 3: expected a row"),
        ({"entity": ["a"]}, "line 3: expected a row"),
    ],
)
def test_a_file_that_evaluate_did_not_write_is_refused_by_its_line_before_anything_is_printed(
    tmp_path, capsys, change, said
):
    rows = [{"reader": "old"} | row for row in answered(range(2), RECORDS[:2])]
    write_rows(rows, tmp_path / "a.jsonl")
    write_rows([*rows, rows[0] | change], tmp_path / "b.jsonl")
    assert main(["compare", str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and f"aag compare: {tmp_path}/b.jsonl, {said}" in printed.err
