"""`import aag_hf` loads nothing heavy; PEFT and transformers know its method and task in any order of imports."""

import subprocess
import sys

import pytest


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_the_package_and_the_commands_help_load_no_library():
    libraries = {"torch", "transformers", "peft", "trl", "datasets", "rich", "numpy"}
    code = f"import sys, aag_hf.cli.main as cli; cli.main(['--help']); print({libraries} & sys.modules.keys())"
    assert run(code)[-1] == "set()"


@pytest.mark.parametrize("order", ["import aag_hf, peft", "import peft, aag_hf", "from aag_hf import to_lora"])
def test_peft_knows_the_method(order):
    code = f"{order}\nfrom peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING as known\nprint(known['HYPERLORA'].__name__)"
    assert run(code) == ["HyperLoraConfig"]


@pytest.mark.parametrize("order", ["import aag_hf, transformers", "import transformers.pipelines, aag_hf"])
def test_transformers_knows_the_task(order):
    code = (
        f"{order}\nfrom transformers.pipelines import check_task\nprint(check_task('awakening-qa')[1]['impl'].__name__)"
    )
    assert run(code) == ["AwakeningQAPipeline"]
