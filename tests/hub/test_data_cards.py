"""Data set cards: left by the commands, true to all files of a folder, read by `datasets`, and never in the way."""

import json

import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard

from aag_hf.cli.main import main
from aag_hf.data import read_records, write_records
from aag_hf.data.jsonl import write_rows
from aag_hf.hub import leave_data_card
from aag_hf.hub.cards import NAMELESS, OURS

PASSAGES = [{"title": "Suva", "text": "Suva is in Fiji."}, {"title": "Chad", "text": "Chad is in Africa."}]
RECORDS = [
    {"id": "1", "question": "Where is Suva?", "answers": ["Fiji"]},
    {"id": "2", "question": "Where is Chad?", "answers": ["Africa", "the Sahel"]},
]


@pytest.fixture
def folder(tmp_path):
    """Two splits that `aag retrieve` wrote, and the passages."""
    (tmp_path / "sources").mkdir()
    for split in ("train", "dev-small"):
        write_records(RECORDS, tmp_path / "sources" / f"{split}.jsonl")
    write_rows(PASSAGES, tmp_path / "sources" / "pool.jsonl")
    for split in ("train", "dev-small"):
        retrieve(tmp_path, split)
    return tmp_path / "data"


def retrieve(path, split, top_k="1"):
    command = ["retrieve", "--input", f"{path}/sources/{split}.jsonl", "--pool", f"{path}/sources/pool.jsonl"]
    assert main([*command, "--output", f"{path}/data/{split}.jsonl.gz", "--top_k", top_k, "--overwrite", "true"]) == 0


def test_one_card_tells_of_every_file_and_the_command_that_wrote_it(folder, online):
    card = DatasetCard.load(folder / "README.md")
    card.validate()
    assert str(card) in online.validated_cards
    assert card.data.license == "unknown" and card.data.size_categories == "n<1K"
    assert card.data.task_categories == ["question-answering"]
    for split in ("train", "dev-small"):
        row = f"| `{split}.jsonl.gz` | 2 | `aag retrieve` | input `{split}.jsonl`, pool `['pool.jsonl']`, top_k `1` |"
        assert row in card.text
    assert "4 rows in 2 files" in card.text and "| `ctxs` | passages" in card.text
    assert str(folder.parent) not in str(card)


def test_names_that_become_alike_stay_apart(tmp_path):
    """Split names have no hyphen, and "default" is the configuration of the records."""
    for name, rows in {"a-b": RECORDS, "a_b": RECORDS[:1], "default": PASSAGES}.items():
        write_rows(rows, tmp_path / f"{name}.jsonl")
        leave_data_card(tmp_path / f"{name}.jsonl", rows, "aag data")
    records = load_dataset(str(tmp_path), "default", cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in records.items()} == {"a_b": 2, "a_b_2": 1}
    passages = load_dataset(str(tmp_path), "default_2", cache_dir=str(tmp_path / "cache"))
    assert passages["default"]["title"][:] == ["Suva", "Chad"]


def test_datasets_loads_the_folder_by_its_card(folder):
    write_rows(PASSAGES, folder / "documents.jsonl")
    leave_data_card(folder / "documents.jsonl", PASSAGES, "aag data")
    splits = load_dataset(str(folder), cache_dir=str(folder.parent / "cache"))
    assert {name: len(split) for name, split in splits.items()} == {"dev_small": 2, "train": 2}
    assert read_records(splits["train"])[0]["ctxs"][0]["title"] == "Suva"
    documents = load_dataset(str(folder), "documents", cache_dir=str(folder.parent / "cache"))["documents"]
    assert documents["title"][:] == ["Suva", "Chad"]
    assert f'load_dataset("{NAMELESS}", "documents")' in (folder / "README.md").read_text()


def test_the_same_command_writes_the_same_bytes_and_another_is_told(folder):
    before = (folder / "README.md").read_bytes()
    retrieve(folder.parent, "train")
    assert (folder / "README.md").read_bytes() == before
    retrieve(folder.parent, "train", top_k="2")
    assert (folder / "README.md").read_text() != before.decode()
    assert "train.jsonl`, pool `['pool.jsonl']`, top_k `2`" in (folder / "README.md").read_text()


def test_a_file_that_is_gone_is_no_longer_told_of(folder):
    (folder / "dev-small.jsonl.gz").unlink()
    retrieve(folder.parent, "train")
    assert "dev-small" not in (folder / "README.md").read_text()


@pytest.mark.parametrize("edit", ["# Mine\n", None])
def test_a_card_of_your_own_stays(folder, edit):
    own = edit or (folder / "README.md").read_text().replace(OURS, "My words.")
    (folder / "README.md").write_text(own)
    retrieve(folder.parent, "train", top_k="2")
    assert (folder / "README.md").read_text() == own


def test_a_folder_with_more_than_data_gets_no_card(tmp_path):
    (tmp_path / "script.py").write_text("")
    write_records(RECORDS, tmp_path / "train.jsonl")
    leave_data_card(tmp_path / "train.jsonl", RECORDS, "aag data")
    assert not (tmp_path / "README.md").exists()


def test_contexts_from_memory_come_with_a_warning(tmp_path):
    records = [record | {"generated_context": "x"} for record in RECORDS]
    settings = {"generator": ["/home/me/runs/generator"], "prompt": "Question: {question}\nContext:"}
    write_records(records, tmp_path / "test.jsonl")
    leave_data_card(tmp_path / "test.jsonl", records, "aag generate", settings)
    text = (tmp_path / "README.md").read_text()
    assert "can be wrong" in text and "/home/me" not in text and json.dumps(["generator"]).replace('"', "'") in text


def test_a_licence_named_in_the_metadata_stays(folder):
    path = folder / "README.md"
    path.write_text(path.read_text().replace("license: unknown", "license: cc-by-sa-3.0\nlanguage: en"))
    before = path.read_bytes()
    retrieve(folder.parent, "train")
    assert DatasetCard.load(path).data.license == "cc-by-sa-3.0" and DatasetCard.load(path).data.language == "en"
    retrieve(folder.parent, "train", top_k="2")
    retrieve(folder.parent, "train")
    assert sorted(path.read_bytes().splitlines()) == sorted(before.splitlines())


def test_a_card_that_is_broken_stays_as_it_is(folder):
    path = folder / "README.md"
    path.write_text(path.read_text().replace("license: unknown", "license: [mit"))
    broken = path.read_text()
    retrieve(folder.parent, "train", top_k="2")
    assert path.read_text() == broken
