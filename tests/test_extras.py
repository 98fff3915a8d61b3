"""The core works without any extra, and a missing package is named with the line that installs it."""

import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from aag_hf.extras import EXTRA_OF

ROOT = Path(__file__).resolve().parent.parent
WITHOUT_EXTRAS = f"""
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, *where):
        return None if name.partition(".")[0] in {sorted(EXTRA_OF)} else self.finder.find_spec(name, *where)
sys.meta_path[:] = map(Without, sys.meta_path)
"""


def run(code):
    return subprocess.run([sys.executable, "-c", WITHOUT_EXTRAS + code], capture_output=True, text=True, cwd=ROOT)


def test_the_core_works_without_any_extra():
    code = """
import aag_hf, torch
from aag_hf.collators import DataCollatorForContextDistillation
from aag_hf.evaluation import exact_match, evaluate_reader
from aag_hf.trainers import ContextDistillationTrainer, ContextGeneratorTrainer
from peft import get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM
for name in aag_hf.__all__:
    getattr(aag_hf, name)
sizes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=16)
base = LlamaForCausalLM(LlamaConfig(**sizes))
config = aag_hf.HyperLoraConfig(task_type="CAUSAL_LM", feature_dim=4, target_modules=["q_proj"])
model = get_peft_model(base, config)
print(model(input_ids=torch.tensor([[1, 2]]), features=torch.ones(1, 4)).logits.shape)
"""
    done = run(code)
    assert done.stdout == "torch.Size([1, 2, 16])\n", done.stderr


@pytest.mark.parametrize(
    ("code", "package", "extra"),
    [
        ("from aag_hf.data.retrieval import PassageIndex", "tantivy", "retrieval"),
        ("from aag_hf.data.longllmlingua import LongLLMLingua", "llmlingua", "compression"),
        ("from aag_hf.cli.main import main; sys.exit(main(['train', '--help']))", "trl", "train"),
    ],
)
def test_a_missing_package_is_named_with_its_install_line(code, package, extra):
    done = run(code)
    last = done.stderr.splitlines()[-1]
    assert done.returncode and last.endswith(f"{package} is not installed: run `pip install 'aag-hf[{extra}]'`."), last


def test_each_package_is_in_the_extra_that_is_named():
    setup = ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    for package, extra in EXTRA_OF.items():
        names = re.findall(r"^([\w-]+)", extras[extra], flags=re.MULTILINE)
        assert package.replace("_", "-") in [name.replace("_", "-") for name in names], (package, extra)


def test_the_oldest_versions_allowed_are_those_that_the_tests_run_with():
    tested = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    allowed = re.findall(r"^    ([\w.-]+)(?:\[\w+\])?>=(\S+)$", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
    assert len(allowed) > 20
    untested = {name: oldest for name, oldest in allowed if not f"{tested[name]}.".startswith(f"{oldest}.")}
    assert not untested
