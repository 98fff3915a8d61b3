"""One run at a time on an output; what a killed run left is recognised, and what belongs to a living one stays."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aag_hf.errors import InputError
from aag_hf.locks import locked, remove_leftovers, temporary_file, temporary_folder

HOLDER = """
import sys, time
from pathlib import Path
from aag_hf.locks import locked, temporary_file, temporary_folder
output = Path(sys.argv[1])
with locked(output), temporary_file(output), temporary_folder(output):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that is writing ``tmp_path / "out"``."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path / "out"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def names(folder: Path):
    return sorted(path.name for path in folder.iterdir())


def test_a_second_run_is_refused_by_process_and_host(tmp_path, holder):
    told = rf"another run is writing it \(process {holder.pid} on .*begun 0 minutes ago"
    with pytest.raises(InputError, match=told), locked(tmp_path / "out"):
        pass


def test_another_output_beside_it_is_free(tmp_path, holder):
    with locked(tmp_path / "other"):
        pass
    assert len(names(tmp_path)) == 3


def test_the_lock_of_a_killed_run_is_taken_over_and_said(tmp_path, holder, capsys):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with locked(tmp_path / "out"):
        pass
    assert f"taken over from a run that was stopped (process {holder.pid} on" in capsys.readouterr().err


def test_a_process_forked_from_a_killed_run_does_not_keep_its_lock(tmp_path):
    # The child tells that it runs: before that, it may not have closed what it inherited.
    code = HOLDER.replace("print", "if not __import__('os').fork(): print")
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path / "out"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    process.kill()
    process.wait()
    with locked(tmp_path / "out"):
        pass


def test_leftovers_of_a_killed_run_go_and_those_of_a_living_one_stay(tmp_path, holder):
    living = names(tmp_path)
    assert len(living) == 3
    remove_leftovers(tmp_path / "out")
    assert names(tmp_path) == living
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    remove_leftovers(tmp_path / "out")
    assert names(tmp_path) == [".out.lock"]


def test_nothing_stays_behind_after_an_error(tmp_path):
    output = tmp_path / "a" / "b" / "out"
    with (
        pytest.raises(KeyboardInterrupt),
        locked(output),
        temporary_file(output),
        temporary_folder(output) as folder,
    ):
        (folder / "file").write_text("x")
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_two_temporary_folders_of_one_output_are_apart(tmp_path):
    with temporary_folder(tmp_path / "out") as one, temporary_folder(tmp_path / "out") as two:
        assert one != two and one.is_dir() and two.is_dir()


def test_an_output_below_a_file_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written there"), locked(tmp_path / "file" / "out"):
        pass
