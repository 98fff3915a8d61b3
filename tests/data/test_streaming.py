"""Files are read row by row, whatever their size: what is read does not depend on where the reader stops to breathe."""

import json
import tracemalloc

import pytest

from aag_hf.cli.main import main
from aag_hf.data import json_values, read_records
from aag_hf.data.bad_rows import BadRows
from aag_hf.data.files import read_rows
from aag_hf.data.records import iter_records
from aag_hf.errors import InputError

RECORD = {"id": "q1", "question": 'Where is "Suva"?', "answers": ["Fiji"], "n": [-1.5e-7, 12, None, True, {}]}
ROWS = [RECORD, 17, "text \\ with \u00e9 \U0001f30d", [], {"a": {"b": [1, 2]}}, -3.25, False]


def values(path, bad=None):
    return [value for _, value in read_rows(path, bad)]


@pytest.mark.parametrize("step", [*range(1, 40), 1000])
@pytest.mark.parametrize("layout", [{}, {"indent": 1}, {"ensure_ascii": False, "separators": (",", ":")}])
def test_a_list_is_the_same_wherever_it_is_cut(tmp_path, monkeypatch, step, layout):
    monkeypatch.setattr(json_values, "STEP", step)
    (tmp_path / "a.json").write_text(json.dumps(ROWS, **layout), encoding="utf-8")
    assert values(tmp_path / "a.json") == ROWS


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"a": 1},\n {"a" 2}]', r"broken JSON \(Expecting ':' delimiter, line 2 column 7\)"),
        ("[1,\n\n  2 3]", r"broken JSON \(Expecting ',' delimiter, line 3 column 5\)"),
        ("[1, 2", "broken JSON"),
        ("[1, tru]", "broken JSON"),
        ('[1, "half', r"broken JSON \(Unterminated string"),
        ("[1] [2]", r"broken JSON \(Extra data, line 1 column 5\)"),
        ('[1, {"a": 1, "a": 2}]', "record 2: key 'a' stands twice"),
        ('[1, "\\ud83d"]', "record 2: holds half a character"),
        ("[1, 1e999]", "record 2: the number 1e999 is too large"),
        ("3", "found a JSON int"),
        ('{"version": "1.1"}', "found a JSON dict"),
    ],
)
def test_a_bad_list_is_refused_by_its_place(tmp_path, monkeypatch, step, text, said):
    monkeypatch.setattr(json_values, "STEP", step)
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=said) as error:
        values(tmp_path / "a.json")
    assert str(error.value).startswith(f"{tmp_path / 'a.json'}")


def test_a_list_under_the_key_data_is_read(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"version": "1.1", "n": [1], "data": ROWS, "more": 1}))
    (tmp_path / "b.json").write_text(json.dumps({"Data": ROWS, "Domain": "web"}))
    assert values(tmp_path / "a.json") == values(tmp_path / "b.json") == ROWS


def test_good_items_around_bad_ones_are_kept_up_to_the_limit(tmp_path, caplog):
    (tmp_path / "a.json").write_text('[1, {"a": 1, "a": 2}, 2, "\\ud83d", 3, 4 5]')
    bad = BadRows(3)
    assert values(tmp_path / "a.json", bad) == [1, 2, 3, 4] and bad.count == 3
    with pytest.raises(InputError, match=r"broken JSON .* 2 bad rows before it were left out"):
        values(tmp_path / "a.json", BadRows(2))


def test_one_more_bad_record_than_allowed_is_refused_and_nothing_is_left(tmp_path, capsys):
    rows = [
        {"question": f"q{i}?", "answers": ["a"] if i % 3 else []} | ({} if i % 3 else {"id": 1.5}) for i in range(9)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["data", "--source", f"{tmp_path}/a.jsonl", "--output", f"{tmp_path}/out/b.jsonl", "--skip_bad"]
    assert main([*flags, "2"]) == 2
    assert "line 7: field 'id'" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert main([*flags, "3"]) == 0 and len(read_records(tmp_path / "out" / "b.jsonl")) == 6


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_memory_holds_few_records_at_a_time(tmp_path, name):
    rows = [json.dumps({"question": f"q{i}?", "answers": ["a"], "more": "x" * 50_000}) for i in range(300)]
    text = "[" + ",\n".join(rows) + "]" if name == "a.json" else "\n".join(rows)
    (tmp_path / name).write_text(text)
    tracemalloc.start()
    try:
        assert sum(1 for _ in iter_records(tmp_path / name)) == 300
        assert tracemalloc.get_traced_memory()[1] < 8_000_000 < len(text)
    finally:
        tracemalloc.stop()
