"""The examples run, and the README shows what runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.compress import CompressOptions
from aag_hf.cli.evaluate import EvaluateOptions
from aag_hf.cli.generate import GenerateOptions
from aag_hf.cli.retrieve import RetrieveOptions
from aag_hf.cli.train import TrainOptions
from aag_hf.cli.train_generator import TrainGeneratorOptions
from aag_hf.trainers import ContextDistillationConfig, ContextGeneratorConfig

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
RECIPES = sorted((ROOT / "configs" / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_example_runs(example, tiny_llama_dir, tiny_t5_dir, tmp_path):
    model = tiny_t5_dir if example.name.startswith("seq2seq") else tiny_llama_dir
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-W", "ignore", str(example), model], cwd=tmp_path, env=environment, check=True)
    assert list((tmp_path / "runs").rglob("adapter_model.safetensors"))


def test_readme_shows_lines_of_the_example_in_their_order():
    lines = iter((ROOT / "examples" / "own_trainer.py").read_text().splitlines())
    shown = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    (block,) = [block for block in shown if "HyperLoraConfig" in block]
    assert all(line in lines for line in block.splitlines() if line)


OPTIONS = {
    "retrieve": (RetrieveOptions,),
    "compress": (CompressOptions,),
    "train-generator": (TrainGeneratorOptions, ContextGeneratorConfig),
    "generate": (GenerateOptions,),
    "train": (TrainOptions, ContextDistillationConfig),
    "evaluate": (EvaluateOptions,),
}
FLAGS = {"train-generator": ["--use_cpu", "true"], "train": ["--use_cpu", "true", "--report_to", "none"]}
FILES = {
    "retrieve": ["--input", "in.jsonl", "--pool", "in.jsonl", "--output", "out.jsonl"],
    "compress": ["--input", "in.jsonl", "--output", "out.jsonl"],
}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_every_key_of_a_recipe_sets_an_option_of_its_command(recipe):
    for command, section in yaml.safe_load(recipe.read_text()).items():
        flags = [*FLAGS.get(command, []), *FILES.get(command, [])]
        parsed = parse_arguments(command, OPTIONS[command], ["--config", str(recipe), *flags])
        values = {name: value for options in parsed for name, value in vars(options).items()}
        assert section.keys() <= values.keys()
