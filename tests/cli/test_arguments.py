"""Recipes: one section per command, flags win, unknown keys are refused by name."""

from dataclasses import dataclass, field, fields
from importlib.metadata import version

import pytest

from aag_hf.cli.arguments import COMMANDS, parse_arguments
from aag_hf.cli.main import main
from aag_hf.cli.train_options import TrainOptions
from aag_hf.errors import InputError
from aag_hf.trainers import ContextDistillationConfig


@dataclass
class Options:
    steps: int = field(default=1, metadata={"help": "Steps."})
    rate: float = field(default=0.1, metadata={"help": "Rate."})


def parse(tmp_path, recipe, *flags):
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe)
    return parse_arguments("train", (Options,), ["--config", str(path), *flags])[0]


def test_a_commands_own_section_is_read_and_flags_win(tmp_path):
    recipe = "train: {steps: 5, rate: 1e-3}\nevaluate: {seed: 1}\n"
    assert parse(tmp_path, recipe) == Options(5, 1e-3)
    assert parse(tmp_path, recipe, "--steps", "7") == Options(7, 1e-3)


def test_a_flat_recipe_serves_one_command(tmp_path):
    assert parse(tmp_path, "steps: 5\n") == Options(5, 0.1)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("train: {stepps: 5}", r"train: stepps: unknown key \(did you mean steps\?\)"),
        ("train: {steps: 5}\ntrian: {steps: 5}", "unknown section trian"),
        ("evaluate: {seed: 1}", "has no section 'train'"),
        ("- steps", "expected a mapping of options, found list"),
        ("train: {steps: [", "not valid YAML"),
    ],
)
def test_a_recipe_that_does_not_fit_is_named(tmp_path, recipe, message):
    with pytest.raises(InputError, match=message):
        parse(tmp_path, recipe)


def test_a_missing_recipe_is_named():
    with pytest.raises(InputError, match=r"nowhere\.yaml: no such recipe"):
        parse_arguments("train", (Options,), ["--config", "nowhere.yaml"])


def test_wrong_input_ends_in_one_line_and_no_traceback(capsys, tmp_path):
    assert main(["evaluate", "--model", "x", "--input", str(tmp_path / "none.jsonl"), "--output_dir", "y"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("aag evaluate: ") and "none.jsonl" in error and "Traceback" not in error


@pytest.mark.parametrize("value", ["[1]", "5", "a=1", "{"])
def test_arguments_of_a_scheduler_that_are_no_mapping_are_refused_before_any_work(capsys, value):
    options = ["--train_file", "x.jsonl", "--output_dir", "y", "--lr_scheduler_kwargs", value]
    assert main(["train", *options]) == 2
    assert capsys.readouterr().err == (
        f'aag train: lr_scheduler_kwargs is {value!r}: expected a JSON object, such as {{"name": 1}}.\n'
    )


def test_unknown_commands_name_the_known_ones(capsys):
    assert main(["trian"]) == 2
    assert "train-generator" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as exit_status:
        main([command, "--help"])
    assert exit_status.value.code == 0 and f"aag {command}" in capsys.readouterr().out


def test_the_help_of_training_lists_our_options_by_subject_and_the_trainers_on_request(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")

    def said(flag):
        with pytest.raises(SystemExit) as exit_status:
            main(["train", flag])
        assert exit_status.value.code == 0
        return capsys.readouterr().out

    short, whole = said("--help"), said("--help-all")
    assert short.index("--train_file") < short.index("--lora_alpha") < short.index("--learning_rate")
    assert "--adam_beta2" not in short and "--adam_beta2" in whole
    assert "--train-file" not in short and "==SUPPRESS==" not in whole and len(short.splitlines()) < 130
    flags = {flag for line in whole.splitlines() for flag in line.split()[:1] if flag.startswith("--")}
    options = [option for one in (TrainOptions, ContextDistillationConfig) for option in fields(one) if option.init]
    assert {f"--{option.name}" for option in options} <= flags


def test_the_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"aag-hf {version('aag-hf')}\n"
