"""Data set cards: true to all files of a folder, read by `datasets`, and never in the way."""

import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard

from aag_hf.cli.main import main
from aag_hf.data import read_records, write_records
from aag_hf.data.jsonl import write_rows
from aag_hf.errors import InputError
from aag_hf.hub import data_card
from aag_hf.hub.cards import OURS

PASSAGES = [{"title": "Suva", "text": "Suva is in Fiji."}, {"title": "Chad", "text": "Chad is in Africa."}]
RECORDS = [
    {"id": "1", "question": "Where is Suva?", "answers": ["Fiji"]},
    {"id": "2", "question": "Where is Chad?", "answers": ["Africa", "the Sahel"]},
]


@pytest.fixture
def folder(tmp_path):
    """Two splits that `aag retrieve` wrote, and the passages."""
    (tmp_path / "sources").mkdir()
    write_rows(PASSAGES, tmp_path / "sources" / "pool.jsonl")
    for split in ("train", "dev-small"):
        write_records(RECORDS, tmp_path / "sources" / f"{split}.jsonl")
        command = ["retrieve", "--input", f"{tmp_path}/sources/{split}.jsonl", "--top_k", "1"]
        command += ["--pool", f"{tmp_path}/sources/pool.jsonl", "--output", f"{tmp_path}/data/{split}.jsonl.gz"]
        assert main(command) == 0
    assert not (tmp_path / "data" / "README.md").exists()
    write_rows(PASSAGES, tmp_path / "data" / "documents.jsonl")
    return tmp_path / "data"


def publish(folder):
    assert main(["publish", "--data", str(folder), "--repo_id", "me/records"]) == 0
    return folder / "README.md"


def test_the_card_tells_of_every_file_and_of_the_command_that_wrote_it(folder, online):
    card = DatasetCard.load(publish(folder))
    card.validate()
    assert str(card) in online.validated_cards
    assert card.data.license == "unknown" and card.data.task_categories == ["question-answering"]
    for split in ("train", "dev-small"):
        (row,) = [line for line in card.text.splitlines() if line.startswith(f"| `{split}.jsonl.gz` | `2` | `id`")]
        for told in ("`ctxs`", "`command retrieve`", "`top_k 1`", f"`input {split}.jsonl`", "`pool 1 pool.jsonl`"):
            assert told in row
    assert str(folder.parent) not in str(card)


def test_datasets_loads_the_folder_by_its_card(folder):
    card = publish(folder)
    splits = load_dataset(str(folder), cache_dir=str(folder.parent / "cache"))
    assert {name: len(split) for name, split in splits.items()} == {"dev_small": 2, "train": 2}
    assert read_records(splits["train"])[0]["ctxs"][0]["title"] == "Suva"
    documents = load_dataset(str(folder), "documents", cache_dir=str(folder.parent / "cache"))["documents"]
    assert documents["title"][:] == ["Suva", "Chad"]
    assert 'load_dataset("me/records", "documents")' in card.read_text()


def test_files_that_would_be_one_split_are_refused(tmp_path):
    """Names of splits have no hyphen."""
    for name in ("a-b", "a_b"):
        write_rows(RECORDS, tmp_path / f"{name}.jsonl")
    with pytest.raises(InputError, match="several files would be the split 'a_b': rename all but one"):
        data_card(tmp_path, "me/records")


def test_a_folder_without_records_is_refused(tmp_path, capsys):
    (tmp_path / "script.py").write_text("")
    assert main(["publish", "--data", str(tmp_path), "--repo_id", "me/records"]) == 2
    assert "holds no file of records" in capsys.readouterr().err
    (tmp_path / "x.jsonl").write_text("[1]\n")
    with pytest.raises(InputError, match=r"x\.jsonl, line 1: expected a JSON object"):
        data_card(tmp_path, "me/records")


def test_the_same_folder_has_the_same_card_and_another_is_told(folder):
    before = publish(folder).read_bytes()
    assert publish(folder).read_bytes() == before
    (folder / "dev-small.jsonl.gz").unlink()
    assert "dev-small" not in publish(folder).read_text()


@pytest.mark.parametrize(("said", "instead"), [(OURS, "My words."), ("license: unknown", "license: [")])
def test_a_card_of_your_own_stays(folder, said, instead):
    own = publish(folder).read_text().replace(said, instead)
    (folder / "README.md").write_text(own)
    (folder / "dev-small.jsonl.gz").unlink()
    assert publish(folder).read_text() == own


def test_a_licence_named_in_the_metadata_stays(folder):
    path = publish(folder)
    path.write_text(path.read_text().replace("license: unknown", "license: cc-by-sa-3.0\nlanguage: en"))
    data = DatasetCard.load(publish(folder)).data
    assert data.license == "cc-by-sa-3.0" and data.language == "en"


def test_converted_data_have_a_card_where_they_are_alone(tmp_path, capsys):
    write_records(RECORDS, tmp_path / "mixed" / "raw.jsonl")
    for output in ("alone/train.jsonl", "alone/dev.jsonl", "alone/dev.jsonl.gz", "mixed/train.jsonl"):
        source = ["--source", f"{tmp_path}/mixed/raw.jsonl", "--output", f"{tmp_path}/{output}"]
        assert main(["data", *source]) == 0
    assert not (tmp_path / "mixed" / "README.md").exists()
    # The last file would be another split of the same name, so that the card is that of the first two.
    card = DatasetCard.load(tmp_path / "alone" / "README.md")
    splits = [file["split"] for config in card.data.configs for file in config["data_files"]]
    assert splits == ["dev", "train"] and OURS in str(card)
    assert capsys.readouterr().out.splitlines()[-1].startswith("     2 rows in ")
