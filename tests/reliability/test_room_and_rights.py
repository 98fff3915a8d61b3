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
