"""What `aag train` and its warnings look like: lines for people, no bars where there is no terminal."""

import re
import subprocess
import sys

from aag_hf.data import write_records


def test_a_run_prints_a_line_per_log_and_evaluation_and_warnings_in_one_line(tiny_llama_dir, tmp_path):
    records = [
        {"id": str(i), "question": f"what is {i}?", "answers": ["a long answer of many words"]} for i in range(8)
    ]
    write_records(records, tmp_path / "train.jsonl")
    options = ["--train_file", "train.jsonl", "--dev_file", "train.jsonl", "--model_name_or_path", tiny_llama_dir]
    options += ["--method", "lora", "--answer_max_length", "3", "--max_steps", "4", "--logging_steps", "2"]
    options += ["--eval_strategy", "steps", "--eval_steps", "4", "--output_dir", "reader", "--report_to", "none"]
    command = [sys.executable, "-m", "aag_hf.cli.main", "train", *map(str, options)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("step ")]
    assert [line.split("  ")[0] for line in told] == ["step 2 of 4", "step 4 of 4", "step 4 of 4"]
    assert " loss " in told[0] and " eval_loss " in told[2] and "it/s" not in done.stderr and "{" not in done.stderr
    assert re.search(r"^aag train: To fit their limits in training, \d+ answers lost their end\.$", done.stderr, re.M)
    assert "UserWarning" not in done.stderr and "pin_memory" not in done.stderr
    assert done.stdout.splitlines()[-1].startswith("reader: ")
