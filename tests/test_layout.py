"""The packages of the checkout and of the wheel, alone and beside Hugging Face's package of the name `kernels`."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from transformers.utils import import_utils

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"aag_hf": "aag_hf", **{f"aag_hf/{name}": name for name in ("collators", "kernels", "trainers")}}
HEAVY = ["trl", "datasets", "tantivy", "llmlingua", "matplotlib", "rich", "aag_hf.kernels.hyper_lora.triton_kernels"]
OURS = "import aag_hf.kernels.hyper_lora as ours; assert 'hyper_lora_linear' in ours.__all__; print(ours.__file__)"

STAND_IN = '''
"""Answers like Hugging Face's kernels: decorators that leave what they decorate as it is."""
MARKER = "hub"
Mode = type("Mode", (), {"INFERENCE": 1, "TRAINING": 2})


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    if name[0].isupper():
        return type(name, (), {"__init__": lambda self, *args, **kwargs: None})
    return lambda *args, **kwargs: lambda decorated: decorated
'''


def checkout_files():
    """Each file of the packages, by the path it has when installed."""
    return {
        f"{installed}/{path.relative_to(ROOT / folder).as_posix()}"
        for installed, folder in FOLDERS.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: setuptools leaves its intermediate files beside the sources, and packs what lies there."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in FOLDERS.values():
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.glob("*"):
        if path.is_file():
            shutil.copy(path, source)
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("setuptools") else []
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", *isolation, "--wheel-dir", target, source]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode and not isolation and "setuptools" in built.stderr:
        pytest.skip("no setuptools here, and none can be fetched to build a wheel")
    assert built.returncode == 0, built.stderr
    (path,) = target.glob("*.whl")
    return path


def shell(hub_kernels_in=None):
    """The environment of a user's shell, with nothing of ours on the path; maybe with a `kernels` like the Hub's."""
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    if hub_kernels_in is not None:
        version = import_utils.KERNELS_MIN_VERSION
        (hub_kernels_in / "kernels").mkdir()
        (hub_kernels_in / "kernels" / "__init__.py").write_text(STAND_IN)
        (hub_kernels_in / f"kernels-{version}.dist-info").mkdir()
        metadata = f"Metadata-Version: 2.1\nName: kernels\nVersion: {version}\n"
        (hub_kernels_in / f"kernels-{version}.dist-info" / "METADATA").write_text(metadata)
        environment["PYTHONPATH"] = str(hub_kernels_in)
    return environment


@pytest.fixture(params=["without hub kernels", "with hub kernels"])
def environment(request, tmp_path):
    return shell(tmp_path if request.param == "with hub kernels" else None)


def run(*command, cwd=ROOT, **options):
    done = subprocess.run([sys.executable, *command], cwd=cwd, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_wheel_holds_the_packages_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    packed = {name for name in names if not re.match(r"aag_hf-[^/]+\.dist-info/", name)}
    assert packed == checkout_files()
    for folder in ("collators", "trainers", "trainers/context_distillation", "kernels/hyper_lora", "hyperlora"):
        assert f"aag_hf/{folder}/__init__.py" in packed
    assert "aag_hf/kernels/__init__.py" not in packed


def test_wheel_works_without_the_checkout_and_the_method_imports_nothing_heavy(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = f"""
import sys
from importlib.util import find_spec
import aag_hf.hyperlora
{OURS}
for name in ("aag_hf.hyperlora", "aag_hf.collators", "aag_hf.trainers"):
    print(find_spec(name).origin)
print("heavy:", *[name for name in {HEAVY} if name in sys.modules])
"""
    *files, heavy = run("-c", code, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}).splitlines()
    assert len(files) == 4 and all(file.startswith(str(tmp_path)) for file in files)
    assert heavy == "heavy:"


def test_transformers_finds_the_hubs_kernels_at_the_root_and_we_find_ours(tmp_path):
    code = f"""
import kernels
assert kernels.MARKER == "hub"
import transformers, transformers.models.llama.modeling_llama
assert transformers.utils.is_kernels_available()
{OURS}
"""
    assert run("-c", code, env=shell(tmp_path)).strip() == str(ROOT / "kernels" / "hyper_lora" / "__init__.py")


def test_python_m_and_accelerate_launch_work_at_the_root(environment):
    """`accelerate launch -m` starts `python -m` itself."""
    launch = ["-m", "accelerate.commands.launch", "--num_processes", "1", "-m", "aag_hf.cli.main", "--help"]
    assert "usage: aag" in run(*launch, env=environment)


def test_pytest_works_at_the_root(environment):
    collected = run("-m", "pytest", "--collect-only", "tests/kernels/test_hyper_lora.py", env=environment)
    assert "test_hyper_lora.py" in collected
