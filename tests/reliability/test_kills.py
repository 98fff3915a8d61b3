"""A command that is killed at any write to the file system, and run again, makes what it would have made."""

import os

import harness
import pytest

FULL = os.environ.get("AAG_RELIABILITY") == "full"
# Every so many writes; 1 is all of them.
STEP = int(os.environ.get("AAG_RELIABILITY_STEP", 1))
STAGES = list(harness.STAGES) if FULL else ["retrieve"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_command_run_again_makes_the_same(stage, undisturbed, before):
    expected = harness.contents(undisturbed)
    writes = harness.count_writes(stage, before(stage))
    kills = range(1, writes + 1, STEP if FULL else max(writes // 3, 1))
    wrong = {}
    for write in kills:
        folder = before(stage)
        killed = harness.run(stage, folder, harness.killed_at(write, folder))
        again = harness.run(stage, folder)
        found = harness.contents(folder)
        differing = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        if killed.status != -9 or again.status != 0 or differing:
            wrong[write] = (killed.status, again.status, differing, again.error[-300:])
    print(f"{stage}: {len(kills)} kills, {len(wrong)} wrong")
    assert not wrong
