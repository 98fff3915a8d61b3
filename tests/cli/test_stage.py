"""Finished outputs are not redone; another run's are refused; half-written ones never bear the final name."""

import pytest

from aag_hf.cli.stage import claimed, is_finished, manifest, new_directory, real, replacing
from aag_hf.errors import InputError
from aag_hf.manifest import Manifest


def test_a_folder_appears_when_it_is_complete(tmp_path):
    target = tmp_path / "out"
    with new_directory(target, {"seed": 1}) as directory:
        (directory / "file").write_text("x")
        assert not target.exists()
    assert (target / "file").read_text() == "x" and is_finished(target, {"seed": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_error_leaves_nothing_behind(tmp_path):
    with pytest.raises(KeyError), new_directory(tmp_path / "out", {}) as directory:
        (directory / "file").write_text("x")
        raise KeyError("boom")
    assert list(tmp_path.iterdir()) == []


def test_of_two_that_make_the_same_the_first_to_end_stays(tmp_path):
    target = tmp_path / "out"
    with new_directory(target, {"seed": 1}) as one:
        (one / "weights").write_text("one")
        with new_directory(target, {"seed": 1}) as two:
            (two / "weights").write_text("two")
    assert (target / "weights").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_of_two_that_make_different_things_the_second_is_refused(tmp_path):
    with (
        pytest.raises(InputError, match="seed was 2, is 1"),
        new_directory(tmp_path / "out", {"seed": 1}),
        new_directory(tmp_path / "out", {"seed": 2}),
    ):
        pass


def test_a_folder_of_another_run_is_refused_by_what_differs(tmp_path):
    with new_directory(tmp_path / "out", {"seed": 1, "r": 8}):
        pass
    with pytest.raises(InputError, match="seed was 1, is 2"):
        is_finished(tmp_path / "out", {"seed": 2, "r": 8})


def test_a_folder_of_something_else_is_refused_and_never_removed(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match=r"no manifest\.json tells what made it"):
        is_finished(tmp_path, {})
    (tmp_path / "out.checkpoints").mkdir()
    (tmp_path / "out.checkpoints" / "notes.txt").write_text("x")
    for output in (tmp_path, tmp_path / "out"):
        with pytest.raises(InputError, match="is not replaced"), replacing(output):
            pass
    assert (tmp_path / "thesis.tex").exists() and (tmp_path / "out.checkpoints" / "notes.txt").exists()


def test_overwrite_removes_an_output_and_all_that_belongs_to_it(tmp_path):
    with new_directory(tmp_path / "out", {"seed": 1}):
        pass
    for name in ("out.partial", "out.manifest.json"):
        (tmp_path / name).write_text("x")
    (tmp_path / "out.checkpoints" / "checkpoint-3").mkdir(parents=True)
    (tmp_path / "out2").write_text("x")
    with claimed(tmp_path / "out", Manifest({"seed": 2}), overwrite=True) as finished:
        assert not finished
    assert [path.name for path in tmp_path.iterdir()] == ["out2"]


def test_an_output_that_was_to_be_replaced_stays_if_its_successor_fails_before_any_work(tmp_path):
    with new_directory(tmp_path / "out", {"seed": 1}) as directory:
        (directory / "weights").write_text("old")
    with pytest.raises(InputError), claimed(tmp_path / "out", Manifest({"seed": 2}), overwrite=True):
        raise InputError("a bad row")
    assert (tmp_path / "out" / "weights").read_text() == "old" and is_finished(tmp_path / "out", {"seed": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(KeyboardInterrupt), claimed(tmp_path / "out", Manifest({"seed": 2}), overwrite=True):
        (tmp_path / "out.partial").write_text("half of the new one")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial"]


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("output", ["in.jsonl", "sub/../in.jsonl", "folder", "link"])
def test_an_output_that_is_an_input_or_holds_one_is_refused(tmp_path, output, overwrite):
    for folder in ("sub", "folder"):
        (tmp_path / folder).mkdir()
    (tmp_path / "folder" / "manifest.json").write_text("{}")
    inputs = [tmp_path / "in.jsonl", tmp_path / "folder" / "in.jsonl"]
    for path in inputs:
        path.write_text("x")
    (tmp_path / "link").symlink_to("in.jsonl")
    made_by = manifest("retrieve", {}, input=inputs)
    refused = pytest.raises(InputError, match=r"would replace .*in.jsonl, the input input \d: choose another output")
    with refused, claimed(tmp_path / output, made_by, overwrite):
        pass
    assert all(path.read_text() == "x" for path in inputs)


def test_a_link_to_itself_is_no_input_that_could_be_replaced(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with claimed(tmp_path / "out", Manifest({}, {"source": {"path": str(tmp_path / "loop"), "content": "x"}})) as done:
        assert not done


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_to_a_folder_stays_and_the_folder_is_written(tmp_path, is_there):
    (tmp_path / "link").symlink_to("scratch")
    if is_there:
        (tmp_path / "scratch").mkdir()
    for seed in (1, 2):
        made_by = Manifest({"seed": seed})
        with claimed(tmp_path / "link", made_by, overwrite=True), new_directory(tmp_path / "link", made_by) as new:
            (new / "seed").write_text(str(seed))
        assert (tmp_path / "link").is_symlink() and (tmp_path / "scratch" / "seed").read_text() == str(seed)


def test_a_folder_that_is_not_there_yet_is_no_way_to_an_output(tmp_path):
    assert real(tmp_path / "missing" / ".." / "out") == tmp_path / "out"
    (tmp_path / "there").mkdir()
    assert real(tmp_path / "there" / ".." / "out") == tmp_path / "there" / ".." / "out"


def test_a_finished_output_of_older_versions_is_kept_and_the_difference_said(tmp_path, capsys):
    with new_directory(tmp_path / "out", Manifest({"seed": 1}, versions={"torch": "1.0"})):
        pass
    with claimed(tmp_path / "out", Manifest({"seed": 1}, versions={"torch": "2.0"})) as finished:
        assert finished
    assert "made with other versions (torch was '1.0', is '2.0')" in capsys.readouterr().err


def test_several_inputs_are_known_one_by_one(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text(name)
    made_by = manifest("generate", {}, generator=[tmp_path / "a", tmp_path / "b"], teacher=None)
    assert list(made_by.inputs) == ["generator 1", "generator 2"]
    swapped = manifest("generate", {}, generator=[tmp_path / "b", tmp_path / "a"], teacher=None)
    assert len(swapped.differences(made_by)) == 2
