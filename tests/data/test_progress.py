import gzip
import json

import pytest

from aag_hf.data import read_records
from aag_hf.data.progress import resume_map
from aag_hf.errors import InputError

RECORDS = [{"id": f"q{i}", "question": f"question {i}", "answers": ["a"]} for i in range(7)]


class Shouting:
    """Upper-cases questions; stops after `limit` records, as a killed run does."""

    def __init__(self, limit=None):
        self.seen = []
        self.limit = limit

    def __call__(self, records):
        if self.limit is not None and len(self.seen) >= self.limit:
            raise KeyboardInterrupt
        self.seen += [record["id"] for record in records]
        return [record | {"generated_context": record["question"].upper()} for record in records]


def run(output, transform=None, records=RECORDS, **settings):
    transform = transform or Shouting()
    result = resume_map(
        records, transform, output, settings={"model": "m"} | settings, batch_size=2, description="Shouting"
    )
    return result, transform.seen


def stop_after(output, limit):
    with pytest.raises(KeyboardInterrupt):
        run(output, Shouting(limit))
    return output.with_name(output.name + ".partial")


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_a_stopped_run_resumes_after_its_finished_batches(tmp_path, name):
    output = tmp_path / name
    stop_after(output, 4)
    assert not output.exists()
    result, seen = run(output)
    assert seen == ["q4", "q5", "q6"]
    assert result == read_records(output) == run(tmp_path / ("fresh-" + name))[0]
    assert not output.with_name(name + ".partial").exists()


def test_a_torn_last_line_is_done_again(tmp_path):
    partial = stop_after(tmp_path / "out.jsonl", 4)
    partial.write_bytes(partial.read_bytes()[:-5])
    stop_after(tmp_path / "out.jsonl", 2)
    result, seen = run(tmp_path / "out.jsonl")
    assert seen == ["q5", "q6"]
    assert [record["id"] for record in result] == [record["id"] for record in RECORDS]


def test_a_torn_header_starts_again(tmp_path):
    partial = stop_after(tmp_path / "out.jsonl", 2)
    partial.write_bytes(partial.read_bytes()[:9])
    assert len(run(tmp_path / "out.jsonl")[1]) == 7


def test_a_finished_output_is_returned_without_work(tmp_path):
    first, _ = run(tmp_path / "out.jsonl")
    second, seen = run(tmp_path / "out.jsonl")
    assert seen == [] and second == first


def test_other_settings_are_refused_by_name(tmp_path):
    run(tmp_path / "out.jsonl", tokens=64)
    with pytest.raises(InputError, match=r"tokens \(there 64, asked 32\).*another output or delete"):
        run(tmp_path / "out.jsonl", tokens=32)


def test_a_partial_of_other_settings_is_refused_and_kept(tmp_path):
    partial = stop_after(tmp_path / "out.jsonl", 4)
    before = partial.read_bytes()
    with pytest.raises(InputError, match="tokens"):
        run(tmp_path / "out.jsonl", tokens=32)
    assert partial.read_bytes() == before


def test_other_input_is_refused(tmp_path):
    run(tmp_path / "out.jsonl")
    with pytest.raises(InputError, match="other input records"):
        run(tmp_path / "out.jsonl", records=[*RECORDS[:-1], RECORDS[-1] | {"answers": ["b"]}])


def test_a_file_of_unknown_origin_is_refused(tmp_path):
    (tmp_path / "out.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="nothing tells which settings"):
        run(tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == "{}\n"


def test_a_run_that_fails_at_once_leaves_nothing(tmp_path):
    stop_after(tmp_path / "out.jsonl", 0)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_partial_is_refused_by_name(tmp_path):
    partial = stop_after(tmp_path / "out.jsonl", 4)
    partial.write_bytes(partial.read_bytes() + b"{broken\n")
    with pytest.raises(InputError, match="partial: damaged"):
        run(tmp_path / "out.jsonl")


def test_a_transform_that_loses_a_record_is_refused(tmp_path):
    with pytest.raises(ValueError, match="changed the ids"):
        run(tmp_path / "out.jsonl", Losing())


class Losing(Shouting):
    def __call__(self, records):
        return super().__call__(records)[1:]


def test_settings_stand_beside_the_output(tmp_path):
    run(tmp_path / "out.jsonl.gz", tokens=64)
    assert gzip.decompress((tmp_path / "out.jsonl.gz").read_bytes()).count(b"\n") == 7
    beside = json.loads((tmp_path / "out.jsonl.gz.settings.json").read_text())
    assert beside["settings"] == {"model": "m", "tokens": 64}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl.gz", "out.jsonl.gz.settings.json"]
