"""What one process uploads, another loads: against a local server that speaks the Hub's interface."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

HERE = Path(__file__).parent
ARTEFACTS = ("hyperlora", "fid", "encoder", "composed", "published")


def run(hub, cache, *arguments):
    environment = {
        **os.environ,
        "PYTHONPATH": str(HERE.parents[1]),
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(cache),
        "HF_TOKEN": "hf_nobody",
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-W", "ignore", *map(str, arguments)]
    printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    # DeepSpeed, where it is installed, announces itself there too.
    return [line for line in printed.splitlines() if line.startswith(ARTEFACTS)]


@pytest.fixture(scope="module")
def pushed(hub, tmp_path_factory, tiny_llama_dir, tiny_t5_dir):
    """What the uploading process computed with what it loaded again."""
    return run(hub, tmp_path_factory.mktemp("home"), HERE / "round_trip.py", "push", tiny_llama_dir, tiny_t5_dir)


def test_a_stranger_loads_what_was_pushed_and_gets_the_same_numbers(hub, pushed, tmp_path, tiny_llama_dir, tiny_t5_dir):
    loaded = run(hub, tmp_path, HERE / "round_trip.py", "load", tiny_llama_dir, tiny_t5_dir)
    assert tuple(line.split()[0] for line in loaded) == ARTEFACTS
    assert loaded == pushed


def test_only_safetensors_are_uploaded(hub, pushed):
    files = [path for repository in hub.repositories.values() for path in repository]
    assert any(path.endswith(".safetensors") for path in files)
    assert not [path for path in files if path.endswith((".bin", ".pt", ".pth", ".pkl"))]


def test_a_model_is_uploaded_without_its_base(hub, pushed):
    weights = {p: len(c) for p, c in hub.repositories["me/composed"].items() if p.endswith(".safetensors")}
    assert set(weights) == {"reader/adapter_model.safetensors", "question_encoder/model.safetensors"}


def test_a_published_model_has_a_card_that_the_hub_validated(hub, pushed):
    card = ModelCard(hub.repositories["me/published"]["README.md"].decode())
    assert card.data.base_model == "me/base" and card.data.base_model_relation == "adapter"
    assert str(card) in hub.validated_cards
