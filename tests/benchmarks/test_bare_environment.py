"""GPU machines bring torch, Triton, transformers, PEFT and NumPy, and nothing else of what we depend on."""

import csv
import subprocess
import sys
from pathlib import Path


def test_the_gpu_benchmarks_need_nothing_else(tmp_path):
    script, results = Path(__file__).with_name("bare_environment.py"), tmp_path / "results.csv"
    done = subprocess.run([sys.executable, "-W", "ignore", script, results], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with results.open(newline="") as file:
        assert {row["benchmark"] for row in csv.DictReader(file)} == {"distillation step", "compression", "question"}
    assert done.stdout.splitlines()[-1] == "(16, 32) (1, 314)"
