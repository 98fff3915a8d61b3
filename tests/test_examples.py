"""The examples run, and the README shows what runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from aag_hf.cli.arguments import COMMANDS, read_recipe

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
RECIPES = sorted((ROOT / "configs" / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_example_runs(example, tiny_llama_dir, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-W", "ignore", str(example), tiny_llama_dir], cwd=tmp_path, env=environment, check=True
    )
    assert list((tmp_path / "runs").rglob("adapter_model.safetensors"))


def test_readme_shows_the_example_as_it_is():
    assert (ROOT / "examples" / "own_trainer.py").read_text().strip() in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_recipe_sections_are_commands(recipe):
    sections = yaml.safe_load(recipe.read_text())
    assert set(sections) <= set(COMMANDS)
    assert all(read_recipe(recipe, command) == options for command, options in sections.items())
