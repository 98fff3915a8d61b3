"""Finished stages are not redone; another run's folder is refused; half-written folders never bear the final name."""

import pytest

from aag_hf.cli.stage import is_finished, new_directory
from aag_hf.errors import InputError


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


def test_a_folder_of_another_run_is_refused_by_what_differs(tmp_path):
    with new_directory(tmp_path / "out", {"seed": 1, "r": 8}):
        pass
    with pytest.raises(InputError, match="seed was 1, is 2"):
        is_finished(tmp_path / "out", {"seed": 2, "r": 8})


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match=r"has no settings\.json"):
        is_finished(tmp_path, {})
