"""What other programs write is read; what no program can write again is refused by file and line."""

import codecs
import gzip
import json

import pytest

from aag_hf.cli.main import main
from aag_hf.data import read_records, write_records
from aag_hf.data.jsonl import encode_row
from aag_hf.data.pool import read_pool
from aag_hf.errors import InputError

RECORD = {"id": "q1", "question": "Where is Suva?", "answers": ["Fiji"]}
GOOD = {"title": "Suva", "text": "Suva is in Fiji."}
LINE = json.dumps(RECORD)
NAN = float("nan")


def rows_file(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json"])
def test_byte_order_marks_and_line_ends_of_windows_are_read(tmp_path, name):
    text = json.dumps([RECORD], indent=1) if name == "a.json" else f"{LINE}\n"
    data = codecs.BOM_UTF8 + text.replace("\n", "\r\n").encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert read_records(tmp_path / name) == [RECORD]


def test_utf_16_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(f"{LINE}\n".encode("utf-16"))
    with pytest.raises(InputError, match="not UTF-8 text, perhaps UTF-16"):
        read_records(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (LINE.replace("Suva", "\\ud83d"), r"holds half a character \('\\ud83d'\)"),
        (LINE[:-1] + ', "note": {"x": ["\\udc00"]}}', "holds half a character"),
        (LINE[:-1] + f', "n": {"1" * 5000}}}', "Exceeds the limit"),
        (LINE[:-1] + ', "n": 1e999}', "the number 1e999 is too large"),
        (LINE[:-1] + ', "id": "q2"}', "key 'id' stands twice in an object"),
        (LINE[:-1] + ', "n": {"a": 1, "a": 2}}', "key 'a' stands twice"),
        (LINE[:-1] + f', "n": {"[" * 150}{"]" * 150}}}', "nested more than 100 deep"),
        ("[" * 100_000, "nested more than 100 deep"),
        (LINE[:-1] + f', "features": [{10**400}]}}', "'features': expected a list of finite numbers"),
        (LINE[:-1] + ', "features": [NaN]}', "'features': expected a list of finite numbers"),
        (json.dumps(RECORD | {"ctxs": [GOOD | {"score": 10**400}]}), "'score': expected a finite number"),
        (json.dumps(RECORD | {"ctxs": [GOOD | {"score": 1}]}).replace("1}", "1" * 4000 + "}"), "a number of"),
    ],
)
def test_what_cannot_be_written_again_is_refused_by_file_and_line(tmp_path, line, said):
    path = rows_file(tmp_path / "a.jsonl", json.dumps(RECORD | {"id": "q0"}), line)
    with pytest.raises(InputError, match=said) as error:
        read_records(path)
    assert str(error.value).startswith(f"{path}, line 2")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"data": [%s], "data": [%s]}', "key 'data' stands twice"),
        ('{"data": [%s], "Data": [%s]}', "has a second list of records, 'Data'"),
        ('{"v": 1, "data": [%s, %s], "v": 2}', "key 'v' stands twice"),
        ('{"data": [%s, %s]', "broken JSON .Expecting '}'"),
        ('{"data": [%s, %s], "v"', "broken JSON .Expecting ':'"),
        ('{"data": [%s, %s],}', "broken JSON .Expecting property name"),
        ('{"data": [%s, %s]} x', "broken JSON .Extra data"),
        ('{"v": {"a": 1, "a": 2}, "data": [%s, %s]}', "key 'a' stands twice"),
    ],
)
def test_all_of_a_json_file_is_read_also_what_stands_around_its_records(tmp_path, text, said):
    path = tmp_path / "a.json"
    path.write_text(text % (LINE, json.dumps(RECORD | {"id": "q2"})))
    with pytest.raises(InputError, match=f"^{path}: {said}"):
        read_records(path)
    path.write_text('{"v": [1], "data": [' + LINE + '], "w": {"data": []}, "x": 2} ')
    assert read_records(path) == [RECORD]


def test_no_number_is_read_as_null_and_said(tmp_path, caplog):
    path = rows_file(
        tmp_path / "a.jsonl", RECORD | {"note": NAN, "rows": [NAN, float("inf")], "ctxs": [GOOD | {"score": NAN}]}
    )
    assert read_records(path) == [RECORD | {"rows": [None, None], "ctxs": [GOOD]}]
    assert "4 numbers are NaN or infinite" in caplog.text
    write_records(read_records(path), tmp_path / "b.jsonl")
    assert "NaN" not in (tmp_path / "b.jsonl").read_text()


def test_no_number_of_a_data_set_is_null_too():
    datasets = pytest.importorskip("datasets")
    rows = [RECORD | {"note": NAN, "nested": {"x": [1.0, NAN]}}]
    assert read_records(datasets.Dataset.from_list(rows)) == [RECORD | {"nested": {"x": [1.0, None]}}]


@pytest.mark.parametrize("value", [NAN, "\ud83d", object(), {1, 2}])
def test_a_row_that_is_not_json_is_never_written(value):
    with pytest.raises(InputError, match="row 'q1' cannot be written as JSON"):
        encode_row({"id": "q1", "note": value})


@pytest.mark.parametrize(
    ("change", "ctxs"),
    [
        (
            {"ctxs": [{"title": "Suva", "text": "x", "hasanswer": True}]},
            [{"title": "Suva", "text": "x", "has_answer": True}],
        ),
        (
            {"ctxs": [{"title": "Suva", "text": "x", "has_answer": 0}]},
            [{"title": "Suva", "text": "x", "has_answer": False}],
        ),
        (
            {"contexts": [{"docid": "1", "text": '"Suva"\nIn Fiji.'}]},
            [{"title": "Suva", "docid": "1", "text": "In Fiji."}],
        ),
        ({"ctxs": [{"contents": "In Fiji."}]}, [{"title": "", "text": "In Fiji."}]),
        ({"ctxs": [GOOD, {"title": "x", "text": ""}]}, [GOOD]),
    ],
)
def test_passages_of_other_programs_are_understood(tmp_path, change, ctxs):
    assert read_records(rows_file(tmp_path / "a.jsonl", RECORD | change))[0]["ctxs"] == ctxs


@pytest.mark.parametrize(
    ("row", "pool"),
    [
        ({"id": "1", "contents": '"Suva"\nIn Fiji.'}, [{"title": "Suva", "text": "In Fiji."}]),
        ({"question": "q", "positive_ctxs": [GOOD], "hard_negative_ctxs": []}, [GOOD]),
        (
            {"question": "q", "context": [["Suva", ["In Fiji.", " It rains."]]]},
            [{"title": "Suva", "text": "In Fiji. It rains."}],
        ),
        ({"id": "1", "title": "Suva", "section": "History", "text": "Suva is in Fiji."}, [GOOD]),
        ({"title": "Suva", "text": ""}, [{"title": "Suva", "text": "Suva"}]),
    ],
)
def test_pools_of_other_programs_are_understood(tmp_path, row, pool):
    assert read_pool([rows_file(tmp_path / "pool.jsonl", row)]) == pool


def test_blank_rows_of_a_pool_are_left_out_and_counted(tmp_path, caplog):
    path = rows_file(tmp_path / "pool.jsonl", GOOD, {"title": "", "text": " "}, {"title": None, "text": ""})
    assert read_pool([path]) == [GOOD]
    assert "2 blank passages left out, 0 with a title alone" in caplog.text


def test_bad_rows_of_a_pool_are_left_out_only_when_asked(tmp_path, caplog):
    path = rows_file(tmp_path / "pool.jsonl", GOOD, "{", {"title": "T", "text": 3}, "[1]")
    with pytest.raises(InputError, match="line 2: broken JSON"):
        read_pool([path])
    assert read_pool([path], skip_bad=3) == [GOOD]
    assert "3 bad rows left out, the first: " in caplog.text and "line 2" in caplog.text


def test_bad_records_are_left_out_only_when_asked(tmp_path, caplog):
    path = rows_file(tmp_path / "in.jsonl", RECORD, RECORD, "{", RECORD | {"id": "q2", "question": ""})
    flags = ["data", "--source", str(path), "--output", f"{tmp_path}/out.jsonl"]
    assert main(flags) == 2
    assert main([*flags, "--skip_bad", "3"]) == 0
    assert read_records(tmp_path / "out.jsonl") == [RECORD]
    assert "3 bad rows left out" in caplog.text


@pytest.mark.parametrize("answers", [{}, {"answers": []}, {"answers": None}])
def test_questions_without_answers_can_be_converted_and_searched_for(tmp_path, answers, capsys):
    source = rows_file(tmp_path / "in.jsonl", {"id": "q1", "question": "Where is Suva?"} | answers)
    pool = rows_file(tmp_path / "pool.jsonl", GOOD)
    converted, found = f"{tmp_path}/data.jsonl", f"{tmp_path}/found.jsonl"
    assert main(["data", "--source", str(source), "--output", converted]) == 0
    assert main(["retrieve", "--input", converted, "--pool", str(pool), "--output", found]) == 0
    assert "no answers to look for" in capsys.readouterr().out
    (record,) = read_records(found, need_answers=False)
    assert "answers" not in record and "has_answer" not in record["ctxs"][0]
    with pytest.raises(InputError, match="'answers'"):
        read_records(found)


def test_a_damaged_data_set_on_disk_is_named(tmp_path):
    (tmp_path / "ds").mkdir()
    (tmp_path / "ds" / "state.json").write_text("{}")
    with pytest.raises(InputError, match="ds: not a whole data set saved to disk"):
        read_records(tmp_path / "ds")
