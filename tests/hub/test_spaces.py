"""The folder of a Space, and its upload."""

import runpy
from pathlib import Path

import pytest
from huggingface_hub import RepoCard

from aag_hf.cli import demo
from aag_hf.cli.main import main
from aag_hf.hub.spaces import GRADIO

ROOT = Path(__file__).parents[2]


def test_a_space_names_what_it_needs_and_nothing_is_sent(tmp_path, capsys):
    space = tmp_path / "space"
    command = ["publish", "--space", str(space), "--model", "me/reader", "--repo_id", "me/reader-page"]
    assert main(command) == 0
    assert "nothing uploaded" in capsys.readouterr().out
    assert sorted(path.name for path in space.iterdir()) == ["README.md", "app.py", "requirements.txt"]
    card = RepoCard.load(space / "README.md").data.to_dict()
    assert card["sdk"] == "gradio" and card["app_file"] == "app.py" and card["models"] == ["me/reader"]
    assert (
        f"gradio=={card['sdk_version']}\n" in (ROOT / "constraints.txt").read_text() and card["sdk_version"] == GRADIO
    )
    assert (space / "requirements.txt").read_text().startswith("aag-hf[demo]==")
    own = (space / "README.md").read_text().replace("<!-- aag-hf", "<!-- mine")
    (space / "README.md").write_text(own)
    assert main(command) == 0 and (space / "README.md").read_text() == own


@pytest.mark.parametrize("model", [".", "not a name/of/a model"])
def test_a_model_that_no_space_finds_is_refused(model, tmp_path, capsys):
    space = tmp_path / "space"
    assert main(["publish", "--space", str(space), "--model", model, "--repo_id", "me/page"]) == 2
    assert not space.exists() and len(capsys.readouterr().err.splitlines()) == 1


def test_it_is_uploaded_as_a_space(online, tmp_path):
    command = ["publish", "--space", str(tmp_path), "--model", "me/reader", "--repo_id", "me/space-page"]
    assert main([*command, "--push", "true"]) == 0
    assert set(online.repositories["me/space-page"]) >= {"README.md", "app.py", "requirements.txt"}


def test_its_program_starts_the_page_for_all_visitors(tmp_path, monkeypatch):
    assert main(["publish", "--space", str(tmp_path), "--model", "me/reader", "--repo_id", "me/page"]) == 0
    started = []
    monkeypatch.setattr(demo, "demo", started.append)
    with pytest.raises(SystemExit) as status:
        runpy.run_path(str(tmp_path / "app.py"), run_name="__main__")
    assert status.value.code == 0 and started == [demo.DemoOptions(model="me/reader", host="0.0.0.0")]
