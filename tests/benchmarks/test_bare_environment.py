"""GPU machines bring torch, Triton, transformers, PEFT and NumPy, and nothing else of what we depend on."""

import subprocess
import sys
from pathlib import Path


def test_the_gpu_benchmarks_import_nothing_else():
    script = Path(__file__).with_name("bare_environment.py")
    done = subprocess.run([sys.executable, "-W", "ignore", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "(16, 32) (1, 314)"
