"""Every specialisation of the Triton kernels compiles for the GPUs we ship them for, none of which need be here."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed: nothing to compile with")
SCRIPT = Path(__file__).with_name("compile_kernels.py")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="Triton's wheel for this machine has been tried nowhere")
@pytest.mark.parametrize("architecture", ["80", "90"])
def test_kernels_compile_without_register_spills(architecture, tmp_path):
    # A cache of its own: a result from another version of the kernels' dependencies must not pass for this one.
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run([sys.executable, SCRIPT, architecture], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    compiled = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["kernel"] for row in compiled} == {"_shrink_kernel", "_expand_kernel", "_outer_kernel"}
    assert not [row for row in compiled if row["spilled"]]
