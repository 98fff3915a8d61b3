"""A manifest tells outputs apart by what made them: settings, what inputs hold, and versions where a run is resumed."""

import json

import pytest

from aag_hf.contents import content_of
from aag_hf.errors import InputError
from aag_hf.manifest import Manifest


def manifest(content="c1", path="a.jsonl", versions=None, **settings):
    inputs = {"train_file": {"path": path, "content": content}}
    return Manifest({"seed": 1} | settings, inputs, versions or {"torch": "2.11"})


def test_what_is_written_is_read_as_the_same(tmp_path):
    manifest(targets=["q", "v"]).write(tmp_path / "manifest.json")
    found = Manifest.read(tmp_path / "manifest.json")
    assert manifest(targets=["q", "v"]).differences(found) == []
    assert found.identity() == manifest(targets=["q", "v"]).identity()


def test_every_setting_and_input_that_differs_is_named():
    asked = manifest(content="c2", path="b.jsonl", seed=2, optim="sgd")
    with pytest.raises(InputError) as refusal:
        asked.check(manifest(r=8), "out")
    assert "optim was None, is 'sgd'; r was 8, is None; seed was 1, is 2" in str(refusal.value)
    assert "train_file was 'a.jsonl' with content c1, is 'b.jsonl' with content c2" in str(refusal.value)
    assert "--overwrite true" in str(refusal.value)


def test_where_an_input_lies_makes_no_difference():
    assert manifest(path="here").differences(manifest(path="there")) == []
    assert manifest(path="here").identity() == manifest(path="there").identity()


def test_other_versions_keep_what_is_finished_and_stop_what_would_be_mixed():
    newer = manifest(versions={"torch": "2.12"})
    newer.check(manifest(), "out")
    with pytest.raises(InputError, match=r"torch was '2\.11', is '2\.12'"):
        newer.check(manifest(), "out", resuming=True)


@pytest.mark.parametrize(
    "damaged", [b"", b"{", b"null", b"[]", b"3", b"{}", b'{"settings": {}}', b"\xff\xfe", b"[" * 100_000]
)
def test_a_damaged_manifest_is_one_clear_line(tmp_path, damaged):
    (tmp_path / "manifest.json").write_bytes(damaged)
    with pytest.raises(InputError, match=r"manifest\.json: ") as refusal:
        Manifest.read(tmp_path / "manifest.json")
    assert "\n" not in str(refusal.value)


def test_an_input_of_another_form_is_damage_too(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"settings": {}, "inputs": {"a": None}, "versions": {}}))
    with pytest.raises(InputError, match="does not tell what made"):
        Manifest.read(tmp_path / "manifest.json")


def model(folder, weights=b"1", seconds=1.0, seed=1):
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text(json.dumps({"hidden_size": 4, "training_figures": {"seconds": seconds}}))
    (folder / "README.md").write_text(f"trained in {seconds}")
    manifest(seed=seed, path=str(folder)).write(folder / "manifest.json")
    return content_of(folder)


def test_a_folder_is_known_by_weights_configuration_and_what_made_it(tmp_path):
    first = model(tmp_path / "first")
    assert model(tmp_path / "copy", seconds=2.0) == first
    assert model(tmp_path / "weights", weights=b"2") != first
    assert model(tmp_path / "seed", seed=2) != first
    (tmp_path / "copy" / "config.json").write_text("{}")
    assert content_of(tmp_path / "copy") != first


def test_a_file_is_known_by_what_it_holds(tmp_path):
    for name, text in (("a", "x"), ("b", "x"), ("c", "y")):
        (tmp_path / name).write_text(text)
    a, b, c = (content_of(tmp_path / name) for name in "abc")
    assert a == b != c


def test_a_path_with_nothing_there_is_refused_and_a_name_of_the_hub_stands_for_itself(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        content_of(tmp_path / "missing")
    assert content_of("someone/model") == "someone/model@main"


def test_what_a_linked_folder_holds_belongs_to_the_content(tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "weights").write_text("1")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "reader").symlink_to("../part")
    (tmp_path / "model" / "reader" / "round").symlink_to("..")
    before = content_of(tmp_path / "model")
    (tmp_path / "part" / "weights").write_text("22")
    assert content_of(tmp_path / "model") != before


def test_a_manifest_of_another_program_is_a_file_like_any(tmp_path):
    (tmp_path / "manifest.json").write_text('{"name": "web app"}')
    before = content_of(tmp_path)
    (tmp_path / "manifest.json").write_text('{"name": "another"}')
    assert content_of(tmp_path) != before
