"""What the documentation shows runs: with a tiny model in the place of the named one."""

import re
import shlex
from pathlib import Path

import pytest

from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.ask import AskOptions
from aag_hf.cli.compare import CompareOptions
from aag_hf.cli.evaluate import EvaluateOptions
from aag_hf.cli.export import ExportOptions
from aag_hf.cli.index import IndexOptions
from aag_hf.cli.main import main
from aag_hf.cli.memorize import MemorizeOptions
from aag_hf.cli.publish import PublishOptions
from aag_hf.cli.retrieve import RetrieveOptions
from aag_hf.cli.train import TrainOptions
from aag_hf.trainers import ContextDistillationConfig

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
NAMED_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
OPTIONS = {
    "ask": (AskOptions,),
    "compare": (CompareOptions,),
    "evaluate": (EvaluateOptions,),
    "export": (ExportOptions,),
    "index": (IndexOptions,),
    "memorize": (MemorizeOptions,),
    "publish": (PublishOptions,),
    "retrieve": (RetrieveOptions,),
    "train": (TrainOptions, ContextDistillationConfig),
}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def commands(page: Path) -> list[list[str]]:
    lines = "".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("aag ")]


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda page: page.stem)
def test_the_code_of_a_page_runs_from_top_to_bottom(page, tiny_llama_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(blocks(page, "python")).replace(NAMED_MODEL, tiny_llama_dir)
    exec(compile(code, str(page), "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p)], ids=lambda page: page.stem)
def test_the_options_of_every_command_shown_exist(page):
    for command, *flags in commands(page):
        if command == "compare":
            flags = ["--results", *flags]
        if command == "train":
            flags += ["--use_cpu", "true"]
        parse_arguments(command, OPTIONS[command], flags)


def test_retrieval_as_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = DOCS / "how_to" / "own_data.md"
    exec("\n".join(blocks(page, "python")), {"__name__": "__main__"})
    for command in commands(page):
        assert main(command) == 0
    assert (tmp_path / "retrieved.jsonl.gz").read_bytes() == (tmp_path / "found.jsonl.gz").read_bytes()


def test_every_page_is_in_the_navigation():
    navigation = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    assert all(f" {page.relative_to(DOCS).as_posix()}\n" in navigation for page in PAGES)
