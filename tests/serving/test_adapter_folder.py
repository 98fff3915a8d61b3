"""The folder of adapters between `aag serve` and vLLM: whole adapters or none, within its bounds, nobody else's."""

import os

import pytest
import torch
from peft import LoraConfig

from aag_hf.errors import InputError
from aag_hf.serving.adapter_folder import AdapterFolder
from aag_hf.serving.adapter_names import adapter_folder_name, adapter_name, adapters_path

NAMES = [adapter_name("document", str(number), "reader") for number in range(4)]


def lora():
    return LoraConfig(target_modules=["q_proj"]), {"base_model.model.q_proj.lora_A.weight": torch.zeros(8, 32)}


def there(folder):
    return {path.name for path in folder.path.iterdir()}


@pytest.fixture
def folder(tmp_path):
    """It has room for two adapters."""
    alone = AdapterFolder(tmp_path / "one", 10**9)
    alone.add(NAMES[0], *lora())
    (path,) = alone.path.iterdir()
    return AdapterFolder(tmp_path / "adapters", 2 * sum(file.stat().st_size for file in path.iterdir()))


def test_those_used_longest_ago_leave_but_none_in_use(folder):
    assert folder.add(NAMES[0], *lora()) == folder.add(NAMES[1], *lora()) == []
    assert folder.holds(NAMES[0])
    assert folder.add(NAMES[2], *lora()) == [NAMES[1]]
    assert not folder.holds(NAMES[1])
    folder.in_use[NAMES[0]] = folder.in_use[NAMES[2]] = 1
    assert folder.add(NAMES[3], *lora()) == []
    folder.in_use.clear()
    assert folder.add(NAMES[1], *lora()) == [NAMES[0], NAMES[2]]
    assert there(folder) == {adapter_folder_name(name) for name in (NAMES[3], NAMES[1])}


def test_an_adapter_that_cannot_be_written_leaves_nothing(folder):
    config, weights = lora()
    with pytest.raises(ValueError, match="broken"):
        folder.add(NAMES[0], config, weights | {"broken": None})
    assert there(folder) == set() and not folder.holds(NAMES[0])


def test_what_a_killed_run_left_half_is_removed(folder):
    (folder.path / f".{adapter_folder_name(NAMES[1])}.0123abcd.partial").mkdir()
    folder.add(NAMES[0], *lora())
    AdapterFolder(folder.path, 10**9)
    assert there(folder) == {adapter_folder_name(NAMES[0])}


def test_what_is_not_its_own_stays(tmp_path):
    # AAG_ADAPTERS may name a folder that holds other things, such as a home directory.
    for name in (".ssh", "letters", "document-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "key").write_text("mine")
    (tmp_path / "note.txt").write_text("mine")
    others = {".ssh", "letters", "document-1", "note.txt"}
    folder = AdapterFolder(tmp_path, 0)
    assert there(folder) == others
    assert folder.add(NAMES[0], *lora()) == []
    assert folder.add(NAMES[1], *lora()) == [NAMES[0]]
    assert there(folder) == others | {adapter_folder_name(NAMES[1])}
    assert (tmp_path / ".ssh" / "key").read_text() == (tmp_path / "letters" / "key").read_text() == "mine"


def test_a_folder_that_others_can_write_is_refused(tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    with pytest.raises(InputError, match="others can write there: set AAG_ADAPTERS"):
        AdapterFolder(tmp_path / "shared", 1)
    AdapterFolder(tmp_path / "own", 1)
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be a folder of adapters"):
        AdapterFolder(tmp_path / "file" / "adapters", 1)


def test_no_name_leads_out_of_the_folder():
    assert adapter_folder_name(NAMES[0]) == "document-" + NAMES[0].rpartition(":")[2]
    for name in ("aag:document:../../etc", "aag:document:" + "a" * 31 + "/", NAMES[0] + "\n", "aag:other:" + "a" * 32):
        assert adapter_folder_name(name) is None


def test_readers_questions_and_documents_do_not_share_adapters():
    names = {adapter_name(kind, of, reader) for kind in ("question", "document") for of in "ab" for reader in "cd"}
    assert len(names) == 8


def test_the_place_of_adapters_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("AAG_ADAPTERS", str(tmp_path))
    assert adapters_path() == tmp_path
    monkeypatch.delenv("AAG_ADAPTERS")
    assert adapters_path().name == f"aag-adapters-{os.getuid()}"
