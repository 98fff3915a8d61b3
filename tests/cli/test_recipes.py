"""A recipe's values pass the same conversion, choices and ranges as flags; what is wrong is named."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from aag_hf.cli.arguments import parse_arguments
from aag_hf.errors import InputError


@dataclass
class Options:
    train_file: str = field(metadata={"help": "File."})
    method: Literal["lora", "full"] = field(default="lora", metadata={"help": "Method."})
    r: int = field(default=1, metadata={"help": "Rank."})
    learning_rate: float = field(default=0.1, metadata={"help": "Rate."})
    fid: bool = field(default=False, metadata={"help": "FiD."})
    static: bool = field(default=True, metadata={"help": "Static."})
    controls: list[str] = field(default_factory=list, metadata={"help": "Controls."})
    teacher: str | None = field(default="t", metadata={"help": "Teacher."})
    teacher_top_k: int | None = field(default=64, metadata={"help": "Logits."})
    lr_scheduler_kwargs: dict | str | None = field(default=None, metadata={"help": "As JSON."})


def parse(tmp_path, recipe, *flags):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(recipe if isinstance(recipe, bytes) else recipe.encode())
    return parse_arguments("train", (Options,), ["--config", str(path), *flags])[0]


@pytest.mark.parametrize(
    ("entry", "option", "value"),
    [
        ("r: 4", "r", 4),
        ("learning_rate: 1e-3", "learning_rate", 1e-3),
        ("fid: yes", "fid", True),
        ("static: false", "static", False),
        ("controls: [mean, off]", "controls", ["mean", "false"]),
        ("controls: [mean, 'off']", "controls", ["mean", "off"]),
        ("teacher: null", "teacher", None),
        ("teacher_top_k: null", "teacher_top_k", None),
        ("teacher: -x", "teacher", "-x"),
        ("lr_scheduler_kwargs: {a: 1}", "lr_scheduler_kwargs", '{"a": 1}'),
    ],
)
def test_a_value_is_read_as_its_flag_reads_it(tmp_path, entry, option, value):
    assert getattr(parse(tmp_path, f"train_file: x\n{entry}"), option) == value


def test_a_byte_order_mark_and_merged_keys_are_read(tmp_path):
    assert parse(tmp_path, b"\xef\xbb\xbftrain: {train_file: x, r: 2}").r == 2
    assert parse(tmp_path, "train:\n  <<: {r: 2, train_file: x}\n  r: 3").r == 3


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("method: LoRA", "train: method: --method: invalid choice: 'LoRA'"),
        ("r: 2.5", "train: r: --r: invalid int value: '2.5'"),
        ("r: 0", "train: r: r is 0: expected 1 to"),
        ("learning_rate: .nan", "learning_rate is nan"),
        ("fid: maybe", "Truthy value expected: got maybe"),
        ("controls: mean", r"train: controls: expected a list, such as \[mean\], found str"),
        ("controls: []", "train: controls: expected at least one entry"),
        ("controls: [[a]]", "train: controls: expected text, a number, true or false, found list"),
        ("controls: [null]", "found NoneType"),
        ("r: [1, 2]", "train: r: expected one value, found a list"),
        ("r: null", "train: r: is null: expected a value"),
        ("metod: lora", r"train: metod: unknown key \(did you mean method\?\)"),
        ("config: x", "train: config: unknown key"),
        ("no_static: true", "train: no_static: unknown key"),
        ("1: x", "line 1: key 1: expected the name of an option"),
        ("[a]: x", "expected the name of an option"),
        ("r: 1\nr: 2", "line 2: key 'r' stands twice"),
        ("train: 5", "section 'train': expected a mapping of options, found int"),
        ("r: \0", "not valid YAML"),
        ("", "expected a mapping of options, found NoneType"),
        (b"r: \xff", "not UTF-8 text"),
        ("lr_scheduler_kwargs: &a {x: *a}", "train: lr_scheduler_kwargs: holds itself, by an anchor"),
        ('teacher: "\\ud800"', r"train: teacher: teacher is '\\ud800': not UTF-8"),
        ("r: 1".encode("utf-16"), "not UTF-8 text"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_what_its_flag_would_not_take_is_refused_by_file_and_key(tmp_path, recipe, said):
    with pytest.raises(InputError, match=said) as error:
        parse(tmp_path, recipe, "--train_file", "x")
    assert str(error.value).startswith(f"{tmp_path}/recipe.yaml")
