"""Without room or rights a command ends in one line; with them the same command ends well."""

import os

import harness
import pytest

FULL = os.environ.get("AAG_RELIABILITY") == "full"
STAGES = list(harness.STAGES) if FULL else ["data", "retrieve"]
SIZES = [0, 1, 100, 1000, 4096, 20_000, 100_000] if FULL else [0, 100]


def is_refused_in_one_line(ended):
    return ended.status == 2 and len(ended.said()) == 1 and "Traceback" not in ended.error


@pytest.mark.parametrize("stage", STAGES)
def test_on_a_full_disk_it_ends_in_one_line_and_goes_on_with_room(stage, undisturbed, before):
    expected = harness.contents(undisturbed)
    for size in SIZES:
        folder = before(stage)
        ended = harness.run(stage, folder, harness.with_file_size(size))
        assert ended.status == 0 or is_refused_in_one_line(ended), (size, ended)
        again = harness.run(stage, folder)
        assert again.status == 0, (size, again)
        assert harness.contents(folder) == expected, size


@pytest.mark.parametrize("stage", STAGES)
def test_below_a_file_it_ends_in_one_line_and_works_with_a_folder(stage, undisturbed, before):
    folder = before(stage)
    in_the_way = [folder / name for name in harness.STAGES[stage].makes]
    for path in in_the_way:
        path.write_text("x")
    ended = harness.run(stage, folder)
    assert is_refused_in_one_line(ended), ended
    for path in in_the_way:
        assert path.read_text() == "x"
        path.unlink()
    assert harness.run(stage, folder).status == 0
    assert harness.contents(folder) == harness.contents(undisturbed)


@pytest.mark.parametrize("stage", STAGES)
def test_in_a_read_only_folder_it_ends_in_one_line_and_works_once_it_may_write(stage, undisturbed, before):
    folder = before(stage)
    folder.chmod(0o555)
    ended = harness.run(stage, folder, harness.without_privileges)
    assert is_refused_in_one_line(ended) and "Permission denied" in ended.error, ended
    folder.chmod(0o755)
    assert harness.run(stage, folder).status == 0
    assert harness.contents(folder) == harness.contents(undisturbed)
