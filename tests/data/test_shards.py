import gzip
import json

import pytest

from aag_hf.data import read_records, reporting
from aag_hf.data.shards import map_records
from aag_hf.errors import InputError
from aag_hf.manifest import Manifest

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


def run(output, transform=None, records=RECORDS, versions=None, processes=None, **settings):
    transform = transform or Shouting()
    made_by = Manifest({"model": "m"} | settings, versions=versions or {"torch": "2"})
    map_records(records, transform, output, made_by, batch_size=2, description="Shouting", processes=processes)
    return read_records(output) if output.exists() else None, transform.seen


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
    assert output.read_bytes() == (tmp_path / ("fresh-" + name)).read_bytes()
    assert not output.with_name(name + ".partial").exists()


def test_what_a_batch_lost_is_made_again(tmp_path):
    partial = stop_after(tmp_path / "out.jsonl", 6)
    (partial / "0000000002.jsonl").unlink()
    result, seen = run(tmp_path / "out.jsonl")
    assert seen == ["q2", "q3", "q6"]
    assert [record["id"] for record in result] == [record["id"] for record in RECORDS]


class OneOfSeveral:
    """A process among others, which meet nowhere: each call is made after the last one has ended."""

    def __init__(self, process_index, num_processes):
        self.process_index, self.num_processes = process_index, num_processes
        self.is_main_process = process_index == 0

    def wait_for_everyone(self):
        """Nothing to wait for."""


def test_another_number_of_processes_makes_the_same_of_what_a_stopped_run_left(tmp_path):
    run(tmp_path / "alone.jsonl")
    stop_after(tmp_path / "out.jsonl", 2)
    _, second = run(tmp_path / "out.jsonl", processes=OneOfSeveral(1, 3))
    _, third = run(tmp_path / "out.jsonl", processes=OneOfSeveral(2, 3))
    _, first = run(tmp_path / "out.jsonl", processes=OneOfSeveral(0, 3))
    assert (first, second, third) == (["q6"], ["q2", "q3"], ["q4", "q5"])
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "alone.jsonl").read_bytes()


def test_a_partial_of_other_settings_is_refused_and_kept(tmp_path):
    partial = stop_after(tmp_path / "out.jsonl", 4)
    before = sorted(partial.iterdir())
    with pytest.raises(InputError, match="tokens"):
        run(tmp_path / "out.jsonl", tokens=32)
    assert sorted(partial.iterdir()) == before


def test_a_partial_of_other_versions_is_refused(tmp_path):
    stop_after(tmp_path / "out.jsonl", 4)
    with pytest.raises(InputError, match="torch was '2', is '3'"):
        run(tmp_path / "out.jsonl", versions={"torch": "3"})


def test_a_run_that_fails_at_once_leaves_nothing(tmp_path):
    stop_after(tmp_path / "out.jsonl", 0)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_partial_is_refused_by_name(tmp_path):
    partial = stop_after(tmp_path / "out.jsonl", 4)
    (partial / "manifest.json").write_text("{broken")
    with pytest.raises(InputError, match=r"partial/manifest\.json: damaged"):
        run(tmp_path / "out.jsonl")


@pytest.mark.parametrize("header", ["null", "[]", "{}", '{"settings": null, "inputs": {}, "versions": {}}'])
def test_a_partial_that_does_not_say_what_made_it_is_refused(tmp_path, header):
    partial = stop_after(tmp_path / "out.jsonl", 4)
    (partial / "manifest.json").write_text(header)
    with pytest.raises(InputError, match="manifest"):
        run(tmp_path / "out.jsonl")
    (partial / "manifest.json").unlink()
    with pytest.raises(InputError, match="does not tell what made it"):
        run(tmp_path / "out.jsonl")


def test_a_transform_that_loses_a_record_is_refused(tmp_path):
    with pytest.raises(ValueError, match="changed the ids"):
        run(tmp_path / "out.jsonl", Losing())


class Losing(Shouting):
    def __call__(self, records):
        return super().__call__(records)[1:]


def test_the_manifest_stands_beside_the_output(tmp_path):
    run(tmp_path / "out.jsonl.gz", tokens=64)
    assert gzip.decompress((tmp_path / "out.jsonl.gz").read_bytes()).count(b"\n") == 7
    beside = json.loads((tmp_path / "out.jsonl.gz.manifest.json").read_text())
    assert beside["settings"] == {"model": "m", "tokens": 64}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl.gz", "out.jsonl.gz.manifest.json"]


def test_without_a_terminal_one_process_says_now_and_then_how_far_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reporting, "SECONDS_BETWEEN_LINES", 0.0)
    run(tmp_path / "out.jsonl")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and lines[0].startswith("Shouting: 2 of 7, ") and lines[0].endswith(" minutes left")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "other.jsonl", Shouting(2), processes=OneOfSeveral(1, 2))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(reporting, "SECONDS_BETWEEN_LINES", 60.0)
    run(tmp_path / "quick.jsonl")
    assert capsys.readouterr().err == ""
