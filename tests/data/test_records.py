import gzip
import json

import pytest

from aag_hf.data import read_records, write_records
from aag_hf.data.contexts import joined_passages
from aag_hf.errors import InputError

RECORD = {
    "id": "q1",
    "question": "Where is Oslo?",
    "answers": ["Norway"],
    "ctxs": [{"title": "Oslo", "text": "Oslo is in Norway.", "score": 1.5, "has_answer": True}],
    "relation": "location",
}


def write_text(path, *rows):
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def refusal(source, split=None):
    with pytest.raises(InputError) as caught:
        read_records(source, split)
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_written_records_read_back_with_extra_columns_untouched(tmp_path, name):
    records = [RECORD, {"id": "q2", "question": "¿Dónde?", "answers": ["aquí"], "dataset": {"nested": [1]}}]
    write_records(records, tmp_path / name)
    assert read_records(tmp_path / name) == records


def test_json_lists_read_like_lines(tmp_path):
    text = json.dumps([RECORD])
    (tmp_path / "a.json").write_text(text)
    with gzip.open(tmp_path / "b.json.gz", "wt") as file:
        file.write(text)
    assert read_records(tmp_path / "a.json") == read_records(str(tmp_path / "b.json.gz")) == [RECORD]


def test_dpr_rows_get_ids_and_numeric_scores(tmp_path):
    row = {"question": "q", "answers": ["a"], "ctxs": [{"id": "wiki:1", "title": "T", "text": "x", "score": "81.2"}]}
    (tmp_path / "nq-dev.json").write_text(json.dumps([row, row | {"id": 7}]))
    records = read_records(tmp_path / "nq-dev.json")
    assert [record["id"] for record in records] == ["nq-dev-0", "7"]
    assert records[0]["ctxs"] == [{"id": "wiki:1", "title": "T", "text": "x", "score": 81.2}]


def test_nq_open_and_webquestions_keys_are_understood(tmp_path):
    path = write_text(
        tmp_path / "open.jsonl",
        {"question": "q", "answer": ["a", "b"]},
        {"question": "q", "answer": "a"},
        {"qText": "w", "qId": "wqr1", "answers": ["c"]},
    )
    assert read_records(path) == [
        {"id": "open-0", "question": "q", "answers": ["a", "b"]},
        {"id": "open-1", "question": "q", "answers": ["a"]},
        {"id": "wqr1", "question": "w", "answers": ["c"]},
    ]


def test_datasets_read_from_memory_and_from_disk_by_split(tmp_path):
    datasets = pytest.importorskip("datasets")
    one = datasets.Dataset.from_list([RECORD, {"id": "q2", "question": "q", "answers": ["a"]}])
    expected = [RECORD, {"id": "q2", "question": "q", "answers": ["a"]}]
    assert read_records(one) == expected
    one.save_to_disk(str(tmp_path / "one"))
    assert read_records(tmp_path / "one") == expected
    datasets.DatasetDict({"train": one, "test": one.select([1])}).save_to_disk(str(tmp_path / "both"))
    assert read_records(tmp_path / "both", split="test") == expected[1:]
    assert "train, test" in refusal(tmp_path / "both")
    assert "no split 'dev'" in refusal(tmp_path / "both", "dev")


def test_a_folder_of_files_reads_by_split(tmp_path):
    write_records([RECORD], tmp_path / "dev.jsonl.gz")
    assert read_records(tmp_path, split="dev") == [RECORD]
    assert "(dev)" in refusal(tmp_path, "train")


@pytest.mark.parametrize(
    "change, field, expected",
    [
        ({"question": None}, "'question'", "found None"),
        ({"question": "  "}, "'question'", "not blank"),
        ({"answers": []}, "'answers'", "one or more"),
        ({"answers": "Norway"}, "'answers'", "a list"),
        ({"answers": ["Norway", ""]}, "'answers'", "not blank"),
        ({"id": True}, "'id'", "a string"),
        ({"target": 3}, "'target'", "a string"),
        ({"compressed_context": ["x"]}, "'compressed_context'", "a string"),
        ({"generated_contexts": [{"text": "one"}]}, "'generated_contexts'", "a text and a finite number as score"),
        ({"features": [0.5, float("nan")]}, "'features'", "finite"),
        ({"ctxs": {"title": "T"}}, "'ctxs'", "a list of passages"),
        ({"ctxs": [{"title": "T", "text": " "}, {"title": "T", "text": ""}]}, "'text'", "not blank"),
        ({"ctxs": [{"title": "T"}]}, "'text'", "no such field"),
        ({"ctxs": ["passage"]}, "ctxs[0]", "an object with title and text"),
        ({"ctxs": [{"title": "T", "text": "x", "score": "high"}]}, "'score'", "finite number"),
    ],
)
def test_bad_record_is_refused_with_file_line_and_field(tmp_path, change, field, expected):
    path = write_text(tmp_path / "bad.jsonl", RECORD | {"id": "q0"}, "\n", RECORD | change)
    message = refusal(path)
    assert f"{path}, line 3" in message and field in message and expected in message


def test_missing_field_is_named(tmp_path):
    path = write_text(tmp_path / "bad.jsonl", {"id": "q1", "question": "q"})
    assert "line 1: field 'answers'" in refusal(path) and "no such field" in refusal(path)


def test_duplicate_id_is_refused_with_both_places(tmp_path):
    path = write_text(tmp_path / "twice.jsonl", RECORD, RECORD)
    message = refusal(path)
    assert "'q1'" in message and "line 2" in message and "line 1" in message
    with pytest.raises(InputError, match="record 2"):
        write_records([RECORD, RECORD], tmp_path / "out.jsonl")


def test_broken_files_are_refused_by_name(tmp_path):
    assert "line 2: broken JSON" in refusal(write_text(tmp_path / "a.jsonl", RECORD, '{"id": "q2", '))
    assert "holds no records" in refusal(write_text(tmp_path / "b.jsonl"))
    assert "holds no records" in refusal(write_text(tmp_path / "b.json"))
    assert "expected a JSON list" in refusal(write_text(tmp_path / "c.json", {"rows": []}))
    assert "expected a JSON object" in refusal(write_text(tmp_path / "d.jsonl", "[1]\n"))
    assert "no such file" in refusal(tmp_path / "none.jsonl")
    assert "no such file" in refusal(tmp_path / "none")
    assert "split 'dev' asked of a single file" in refusal(write_text(tmp_path / "e.jsonl", RECORD), "dev")
    (tmp_path / "f.jsonl").write_bytes(b"\xff\xfe")
    assert "not UTF-8" in refusal(tmp_path / "f.jsonl")
    (tmp_path / "g.jsonl.gz").write_bytes(gzip.compress(b'{"id": 1}' * 99)[:-9])
    assert "not a whole gzip file" in refusal(tmp_path / "g.jsonl.gz")


def test_unreachable_hub_id_is_one_clear_error(monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "nobody/nothing" in refusal("nobody/nothing")


def test_what_is_no_record_is_not_written(tmp_path):
    with pytest.raises(InputError, match=r"record 2 for .*a\.jsonl: expected an object with id and question, found 5"):
        write_records([{"id": "a", "question": "q?"}, 5], tmp_path / "a.jsonl")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ctxs", ["zz", [5], [{"title": "a"}], 5])
def test_passages_that_cannot_be_read_are_named(ctxs):
    with pytest.raises(InputError, match="ctxs: expected a list of objects with title and text, found"):
        joined_passages(ctxs, 2)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    write_records([RECORD], tmp_path / "a.jsonl")
    with pytest.raises(InputError, match="row 'q2' cannot be written as JSON"):
        write_records([RECORD, RECORD | {"id": "q2", "extra": object()}], tmp_path / "a.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
    assert read_records(tmp_path / "a.jsonl") == [RECORD]
    with pytest.raises(InputError, match="jsonl"):
        write_records([RECORD], tmp_path / "a.csv")


def test_equal_records_make_equal_gzip_files(tmp_path):
    write_records([RECORD], tmp_path / "a.jsonl.gz")
    write_records([RECORD], tmp_path / "b.jsonl.gz")
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
