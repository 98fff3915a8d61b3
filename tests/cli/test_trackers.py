"""Trackers get every loss term of a training run."""

import pytest

from aag_hf.cli.main import main
from aag_hf.data import load_countries, write_records

TERMS = {"loss", "answer_cross_entropy", "distillation_kl", "grad_norm", "learning_rate"}


def test_tensorboard_gets_every_loss_term(tiny_llama_dir, tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write_records(load_countries()["train"][:12], tmp_path / "train.jsonl")
    files = ["--model_name_or_path", tiny_llama_dir, "--train_file", str(tmp_path / "train.jsonl")]
    files += ["--dev_file", str(tmp_path / "train.jsonl"), "--target_modules", "q_proj", "--feature_dim", "8"]
    steps = ["--max_steps", "2", "--logging_steps", "1", "--save_strategy", "no", "--prompt_max_length", "400"]
    plain = [
        "--report_to",
        "none",
        "--method",
        "lora",
        "--context",
        "passages",
        "--output_dir",
        str(tmp_path / "teacher"),
    ]
    assert main(["train", *files, *steps, *plain]) == 0
    student = [
        "--report_to",
        "tensorboard",
        "--teacher",
        str(tmp_path / "teacher"),
        "--output_dir",
        str(tmp_path / "aag"),
    ]
    assert main(["train", *files, *steps, *student]) == 0
    assert (tmp_path / "aag" / "curves.png").is_file()
    logged = set()
    for events in (tmp_path / "aag.checkpoints").rglob("events.out.tfevents.*"):
        logged |= set(EventAccumulator(str(events)).Reload().Tags()["scalars"])
    assert {f"train/{term}" for term in TERMS} | {"eval/loss"} <= logged, logged
