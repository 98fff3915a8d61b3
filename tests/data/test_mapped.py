"""Large files of records are read through a memory map, and are the same records."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from aag_hf.data import mapped, open_records, read_records, write_records
from aag_hf.data.mapped import MappedRecords
from aag_hf.errors import InputError

RECORDS = [
    {
        "id": f"q{i}",
        "question": f"¿{i}?",
        "answers": ["a", "b"][: 1 + i % 2],
        "ctxs": [{"title": "T", "text": "x" * i + "y", "score": 0.1 * i, "id": str(i)}],
        "note": [None, 3, {"nested": [1.5, "z"]}][i % 3],
    }
    for i in range(20)
]
RECORDS = [{name: value for name, value in record.items() if value is not None} for record in RECORDS]


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A file that is too large for memory; its map lies in a folder of the test."""
    monkeypatch.setattr(mapped, "IN_MEMORY", 10)
    monkeypatch.setattr(mapped, "_CHUNK", 300)
    monkeypatch.setattr(mapped, "HF_HOME", str(tmp_path / "home"))
    write_records(RECORDS, tmp_path / "a.jsonl")
    return tmp_path / "a.jsonl"


def test_mapped_records_are_those_of_the_file(large):
    records = open_records(large)
    assert isinstance(records, MappedRecords)
    assert list(records) == RECORDS == read_records(large) and len(records) == 20
    assert records[3] == RECORDS[3] and records[-1] == RECORDS[-1] and records[4:9:2] == RECORDS[4:9:2]
    assert list(pickle.loads(pickle.dumps(records))) == RECORDS
    with pytest.raises(IndexError):
        records[20]


def test_small_files_stay_lists(tmp_path):
    write_records(RECORDS, tmp_path / "a.jsonl.gz")
    assert open_records(tmp_path / "a.jsonl.gz") == RECORDS


def test_the_map_follows_the_file_and_what_is_asked_of_it(large, tmp_path):
    open_records(large)
    write_records(RECORDS[:5], large)
    assert list(open_records(large)) == RECORDS[:5]
    (tmp_path / "b.jsonl").write_text(json.dumps({"question": "who is that?", "answers": ["x"]}) + "\n")
    assert open_records(tmp_path / "b.jsonl")[0]["id"] == "b-0"
    (tmp_path / "b.jsonl").rename(tmp_path / "c.jsonl")
    assert open_records(tmp_path / "c.jsonl")[0]["id"] == "c-0"


def test_a_bad_record_is_refused_and_leaves_no_map(large, tmp_path):
    with large.open("a") as file:
        file.write("{}\n")
    with pytest.raises(InputError, match="line 21"):
        open_records(large)
    assert not list(tmp_path.rglob("*.arrow"))
    assert list(open_records(large, skip_bad=1)) == RECORDS


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_damaged_map_is_made_anew(large, tmp_path, share):
    open_records(large)
    (path,) = tmp_path.rglob("*.arrow")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert list(open_records(large)) == RECORDS


def test_a_map_whose_records_are_damaged_is_named(large, tmp_path):
    records = open_records(large)
    path = records.path
    path.write_bytes(path.read_bytes().replace(b'"question"', b'"question\xff'))
    for read in (lambda: MappedRecords(path)[3], lambda: list(MappedRecords(path))):
        with pytest.raises(InputError, match=f"^{path}: damaged .*: delete it, and it is made anew"):
            read()


def test_several_that_open_it_at_once_get_the_same(large, tmp_path):
    with ThreadPoolExecutor(4) as threads:
        assert all(list(records) == RECORDS for records in threads.map(open_records, [large] * 4))
    assert len(list(tmp_path.rglob("*.arrow"))) == 1
