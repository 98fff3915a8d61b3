"""What a card says of models and settings whose names are paths of this machine."""

import pytest

from aag_hf.data.embedded import EMBEDDED_ON_HUB
from aag_hf.hub.cards import hub_name, without_folder


def test_only_names_of_the_hub_are_names_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "model").mkdir(parents=True)
    assert hub_name("google-t5/t5-small") == "google-t5/t5-small"
    for of_this_machine in ("runs/model", str(tmp_path), "/gone/model", "a/b/c", "", None):
        assert hub_name(of_this_machine) is None


def test_the_embedded_model_has_the_name_of_what_it_was_made_from(tmp_path, monkeypatch):
    monkeypatch.setenv("AAG_CACHE", str(tmp_path))
    kept = tmp_path / "SmolLM2-135M-Instruct"
    kept.mkdir()
    assert hub_name("embedded") == hub_name(str(kept)) == EMBEDDED_ON_HUB


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("/home/me/nq.jsonl", "nq.jsonl"),
        (["~/a", "me/b"], ["a", "me/b"]),
        ({"a": "./b/c"}, {"a": "c"}),
        (0.5, 0.5),
        ("a: {x}/b\nc", "a: {x}/b\nc"),
    ],
)
def test_of_a_path_only_the_last_part_is_told(value, told):
    assert without_folder(value) == told
