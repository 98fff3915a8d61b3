"""What the documentation shows runs: with a tiny model in the place of the named one."""

import re
import shlex
from configparser import ConfigParser
from pathlib import Path

import pytest

from aag_hf import __version__
from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.ask import AskOptions
from aag_hf.cli.compare import CompareOptions
from aag_hf.cli.compress import CompressOptions
from aag_hf.cli.demo import DemoOptions
from aag_hf.cli.evaluate import EvaluateOptions
from aag_hf.cli.export import ExportOptions
from aag_hf.cli.generate import GenerateOptions
from aag_hf.cli.index import IndexOptions
from aag_hf.cli.main import main
from aag_hf.cli.memorize import MemorizeOptions
from aag_hf.cli.publish import PublishOptions
from aag_hf.cli.retrieve import RetrieveOptions
from aag_hf.cli.serve import ServeOptions
from aag_hf.cli.train import TrainOptions
from aag_hf.cli.train_generator import TrainGeneratorOptions
from aag_hf.trainers import ContextDistillationConfig, ContextGeneratorConfig

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
NAMED_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
OPTIONS = {
    "ask": (AskOptions,),
    "compare": (CompareOptions,),
    "compress": (CompressOptions,),
    "demo": (DemoOptions,),
    "evaluate": (EvaluateOptions,),
    "export": (ExportOptions,),
    "generate": (GenerateOptions,),
    "index": (IndexOptions,),
    "memorize": (MemorizeOptions,),
    "publish": (PublishOptions,),
    "retrieve": (RetrieveOptions,),
    "serve": (ServeOptions,),
    "train": (TrainOptions, ContextDistillationConfig),
    "train-generator": (TrainGeneratorOptions, ContextGeneratorConfig),
}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def commands(page: Path) -> list[list[str]]:
    """The commands a page shows, with the shell's variables in their places; of a loop, its first round."""
    text = "".join(blocks(page, "bash")).replace("\\\n", " ")
    for name, quoted, plain in re.findall(r'^(\w+)=(?:"(.*?)"|(\S+))', text, flags=re.M):
        text = text.replace(f"${name}", quoted or plain)
    for name, first in re.findall(r"^for (\w+) in (\S+)", text, flags=re.M):
        text = text.replace(f"${name}", first.rstrip(";"))
    return [
        shlex.split(line, comments=True)[1:] for line in map(str.lstrip, text.splitlines()) if line.startswith("aag ")
    ]


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
        if command.startswith("train"):
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


def test_the_badges_say_what_the_metadata_says():
    metadata = ConfigParser(interpolation=None)
    metadata.read(DOCS.parent / "setup.cfg")
    said = {
        "version": __version__,
        "licence": metadata["metadata"]["license"],
        "python": metadata["options"]["python_requires"].removeprefix(">=") + "+",
    }
    for name, value in said.items():
        assert f"<title>{name}: {value}</title>" in (DOCS / "badges" / f"{name}.svg").read_text(encoding="utf-8")


def test_the_files_that_the_readme_links_to_exist():
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (DOCS.parent / "README.md").read_text(encoding="utf-8"))
    assert links and all((DOCS.parent / link).exists() for link in links)
