"""`AAG_RELIABILITY=full` tries everything, for an hour; else a sample of it is tried, in seconds."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Helpers must be found by the processes that are started, which know no test package.
sys.path.insert(0, str(Path(__file__).parent))

import harness

FULL = os.environ.get("AAG_RELIABILITY") == "full"
unhurried = {"deadline": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("quick", max_examples=60, derandomize=True, **unhurried)
settings.register_profile("full", max_examples=5000, print_blob=True, **unhurried)
settings.load_profile("full" if FULL else "quick")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """A folder in which every stage has run without a disturbance; in the quick part, those without a model."""
    folder = tmp_path_factory.mktemp("undisturbed")
    harness.write_materials(folder)
    for stage in harness.STAGES if FULL else harness.QUICK_STAGES:
        ended = harness.run(stage, folder)
        assert ended.status == 0, ended.error
    return folder


@pytest.fixture
def before(undisturbed, tmp_path):
    """Makes a copy of the undisturbed folder as it was before a stage."""
    return lambda stage: harness.as_before(stage, undisturbed, tmp_path / "work")
