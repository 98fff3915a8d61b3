"""Starts a program on two processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


@pytest.fixture(scope="session")
def start():
    """``start(*command, **environment)``: run one of the environment's programs from the repository root."""

    def start(program, *arguments, **environment):
        finished = subprocess.run(
            [str(Path(sys.executable).with_name(program)), *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=200,
        )
        assert finished.returncode == 0, finished.stdout
        return finished.stdout

    return start
