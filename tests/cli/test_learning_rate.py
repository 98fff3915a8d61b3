"""The learning rate where none is given."""

import json

import pytest

from aag_hf.cli.main import main
from aag_hf.data import load_countries, write_records

TRAINER = ["--max_steps", "1", "--per_device_train_batch_size", "2", "--report_to", "none", "--save_strategy", "no"]


@pytest.mark.parametrize(
    ("options", "rate"),
    [
        (["--method", "lora"], 1e-3),
        (["--method", "full"], 5e-5),
        (["--feature_dim", "8"], 5e-4),
        (["--adapter_from", "document"], 1e-3),
        (["--method", "lora", "--learning_rate", "3e-4"], 3e-4),
    ],
)
def test_it_depends_on_what_is_trained_and_belongs_to_the_run(tiny_llama_dir, tmp_path, options, rate):
    write_records(load_countries()["train"][:40], tmp_path / "train.jsonl")
    command = ["train", "--model_name_or_path", tiny_llama_dir, "--train_file", str(tmp_path / "train.jsonl"), *TRAINER]
    assert main([*command, "--output_dir", str(tmp_path / "reader"), *options]) == 0
    recipe = json.loads((tmp_path / "reader" / "config.json").read_text())["training_recipe"]
    assert recipe["learning_rate"] == rate
