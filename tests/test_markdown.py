"""What a reader of a card sees of names that look like Markdown: the names, each in its cell, and no tags."""

import json
import re

import pytest
from markdown_it import MarkdownIt

from aag_hf.errors import InputError
from aag_hf.hub import model_card, push_folder
from aag_hf.markdown import in_code, in_text

HOSTILE = [
    "x` | pwned |\n\n# Heading\n\n<script>alert(1)</script>\n",
    "a|b",
    "``",
    "\\|",
    "**bold** __bold__ _x_ ~~gone~~ [link](http://x) <b>&amp;",
    "\u2028# Heading",
]
ENCODER = {
    "model_type": "aag_question_encoder",
    "backbone_name_or_path": "me/base",
    "feature_dim": 8,
    "layer": 1,
    "statistics": "token",
    "transformers_version": "5",
}


@pytest.mark.parametrize("write", [in_text, lambda name: f"`{in_code(name)}`"], ids=["text", "code"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_stays_in_its_cell(name, write):
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(f"|a|b|\n|-|-|\n| {write(name)} | 1 |\n")
    cells = re.findall(r"<td>(.*?)</td>", html, re.DOTALL)
    assert len(cells) == 2 and cells[1] == "1"
    assert set(re.findall(r"<(\w+)", html)) <= {"table", "thead", "tbody", "tr", "th", "td", "code"}


@pytest.mark.parametrize("name", ["feature_dim", "layer"])
def test_what_a_configuration_says_instead_of_a_number_enters_no_card(tmp_path, name):
    code = '1)\nimport os; os.system("id")  #'
    (tmp_path / "config.json").write_text(json.dumps(ENCODER))
    assert "(1, 8)" in str(model_card(tmp_path, "me/this"))
    (tmp_path / "config.json").write_text(json.dumps(ENCODER | {name: code}))
    with pytest.raises(InputError, match="damaged"):
        model_card(tmp_path, "me/this")


@pytest.mark.parametrize("auto_map", [None, [], "x", {'A")\n': "x"}])
def test_a_map_that_names_no_class_enters_no_card(tmp_path, auto_map):
    (tmp_path / "config.json").write_text(json.dumps(ENCODER | {"auto_map": auto_map}))
    assert "Without aag-hf" not in str(model_card(tmp_path, "me/this"))


@pytest.mark.parametrize("name", ["", "a/b/c", "me/x y", 'me/x")\nimport os  #', "me/x\n"])
def test_a_name_of_no_repository_is_refused_before_its_card_is_named_so(tmp_path, name):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(InputError, match="expected the name of a repository"):
        push_folder(tmp_path, name)
    assert (tmp_path / "README.md").read_text() == "mine"
