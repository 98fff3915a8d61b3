"""Whatever happens to a command, its user gets one line, an exit code, and no traceback."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from logging import WARNING, LogRecord, getLogger
from typing import get_args, get_type_hints

import pytest
from huggingface_hub.errors import OfflineModeIsEnabled
from safetensors import SafetensorError

from aag_hf.cli import boundary, data
from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.main import main
from aag_hf.cli.ranges import RANGES
from aag_hf.cli.train import TrainOptions
from aag_hf.cli.train_generator import TrainGeneratorOptions
from aag_hf.errors import InputError
from aag_hf.trainers import ContextDistillationConfig, ContextGeneratorConfig

FULL = OSError(28, "No space left on device")
FULL.filename = "runs/out"


def raising(error):
    def run():
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (InputError("x.jsonl: no such file."), 2, "x.jsonl: no such file."),
        (FULL, 2, "runs/out: No space left on device."),
        (ValueError("Target modules\n  {'x'}\n not found"), 2, "Target modules {'x'} not found"),
        (ImportError("needs\nbitsandbytes"), 2, "needs bitsandbytes"),
        (SafetensorError("header too small"), 2, "header too small"),
        (OfflineModeIsEnabled("offline"), 2, "offline"),
        (MemoryError(), 2, "MemoryError"),
        (RuntimeError("CUDA out of memory. Tried"), 2, "CUDA out of memory. Tried"),
        (KeyError("base"), 1, "unexpected KeyError: 'base' (AAG_TRACEBACK=1 shows where; please report it)."),
        (KeyboardInterrupt(), 130, "stopped; run the same command again to continue."),
    ],
)
def test_an_error_is_one_line_and_its_exit_code(error, status, said, capsys):
    assert boundary.run_command("train", raising(error)) == status
    assert capsys.readouterr().err == f"aag train: {said}\n"


def test_the_traceback_is_shown_on_request(capsys, monkeypatch):
    monkeypatch.setenv("AAG_TRACEBACK", "1")
    assert boundary.run_command("train", raising(ValueError("x"))) == 2
    error = capsys.readouterr().err
    assert error.startswith("Traceback") and error.endswith("\naag train: x\n")


def test_a_message_too_long_to_read_is_cut(capsys):
    boundary.run_command("train", raising(ValueError("x" * 10**6)))
    assert len(capsys.readouterr().err) < 2000


def test_deepspeed_does_not_announce_the_processor_but_may_warn():
    assert boundary.run_command("ask", lambda: None) == 0
    logger = getLogger("DeepSpeed")
    said = [LogRecord("DeepSpeed", WARNING, f"/{name}.py", 1, "?", (), None) for name in ("real_accelerator", "engine")]
    assert [bool(logger.filter(record)) for record in said] == [False, True]


def test_a_reader_that_leaves_is_no_error():
    shell = f"{sys.executable} -m aag_hf.cli.main data --source x.json --output y.jsonl 2>&1 >&- | head -c 0"
    assert subprocess.run(["bash", "-c", shell], capture_output=True, text=True).stderr == ""


@pytest.mark.parametrize(
    "module",
    ["aag_hf.cli.main data", "aag_hf.cli.data", "accelerate.commands.launch --num_processes 1 -m aag_hf.cli.data"],
)
def test_every_way_to_start_a_command_ends_in_the_same_line(module, tmp_path):
    command = [sys.executable, "-m", *module.split(), "--source", "none.jsonl", "--output", "out.jsonl"]
    run = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"ACCELERATE_USE_CPU": "true"}
    )
    assert run.returncode != 0 and "aag data: none.jsonl: no such file." in run.stderr.splitlines()


@pytest.fixture
def heeded_interrupts():
    """What a shell starts in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded_interrupts")
def test_ctrl_c_is_not_lost_in_a_destructor(capsys):
    class Interrupted:
        def __del__(self):
            raise KeyboardInterrupt

    def run():
        Interrupted()
        time.sleep(20)

    started = time.monotonic()
    assert boundary.run_command("train", run) == 130
    assert time.monotonic() - started < 10
    assert capsys.readouterr().err == "aag train: stopped; run the same command again to continue.\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--outptu x", "unknown option --outptu (did you mean --output?)"),
        ("--outp x", "unknown option --outp"),
        ("--source x", "output is missing"),
        ("--source x --output y loose", "'loose' stands alone"),
        ("--source x --output y --seed 1.5", "--seed: invalid int value: '1.5'."),
        ("--source x --output y --seed -1", "seed is -1: expected 0 to 4294967295."),
        ("--source x --output", "--output: expected one argument."),
    ],
)
def test_a_wrong_flag_is_named(arguments, said, capsys):
    assert main(["data", *arguments.split()]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_nul_character_is_refused_by_the_options_name(capsys):
    assert main(["data", "--source", "a\0b.jsonl", "--output", "o.jsonl"]) == 2
    assert capsys.readouterr().err.startswith("aag data: source is 'a\\x00b.jsonl'")


@pytest.mark.parametrize(
    ("command", "option"),
    [(["data", "--output", "o.jsonl"], "source"), (["ask", "--model", "m"], "question"), (["compare"], "results")],
)
def test_text_that_is_not_utf_8_is_refused_by_the_options_name_before_any_work(command, option, capsys):
    assert main([*command, f"--{option}", "caf\udce9"]) == 2
    assert (
        capsys.readouterr().err
        == f"aag {command[0]}: {option} is 'caf\\udce9': not UTF-8: expected text, or a name, in UTF-8.\n"
    )


@pytest.mark.parametrize("output", [".", "/", "./"])
def test_an_output_without_a_name_is_refused(output, capsys):
    assert main(["data", "--source", "a.jsonl", "--output", output]) == 2
    assert f"aag data: output is {output!r}: expected a name to write to" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["x", "", "1.5"])
def test_a_launcher_s_variable_that_is_no_number_is_named(value, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", value)
    (tmp_path / "a.jsonl").write_text('{"question": "q?", "answers": ["a"]}\n')
    source = str(tmp_path / "a.jsonl")
    assert main(["retrieve", "--input", source, "--pool", source, "--output", str(tmp_path / "b.jsonl")]) == 2
    assert main(["train", "--train_file", source, "--output_dir", str(tmp_path / "c")]) == 2
    assert main(["index", "--pool", source, "--output", str(tmp_path / "d")]) == 2
    said = f"WORLD_SIZE is {value!r} in the environment: expected a number: unset it.\n"
    assert capsys.readouterr().err == f"aag retrieve: {said}aag train: {said}aag index: {said}"


def test_a_command_that_is_nearly_right_names_the_right_one(capsys):
    assert main(["trian"]) == 2
    assert "did you mean train?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options", [TrainOptions, TrainGeneratorOptions, ContextDistillationConfig, ContextGeneratorConfig]
)
def test_every_number_that_can_be_set_has_a_range(options):
    hints = get_type_hints(options)
    numbers = {f.name for f in fields(options) if f.init and {int, float} & {hints[f.name], *get_args(hints[f.name])}}
    assert numbers and not numbers - set(RANGES)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("per_device_train_batch_size", "0"),
        ("gradient_accumulation_steps", "0"),
        ("learning_rate", "nan"),
        ("learning_rate", "0"),
        ("weight_decay", "inf"),
        ("weight_decay", "-0.1"),
        ("num_train_epochs", "-1"),
        ("max_steps", "0"),
        ("max_steps", "-2"),
        ("warmup_steps", "nan"),
        ("logging_steps", "0"),
        ("lora_dropout", "1"),
        ("feature_layer", "1.1"),
        ("r", "0"),
        ("passages", "-1"),
        ("seed", "4294967296"),
        ("teacher_top_k", "0"),
        ("hidden_dim", "99999999999"),
    ],
)
def test_a_number_out_of_range_is_refused_by_name(option, value):
    with pytest.raises(InputError, match=f"^{option} is "):
        parse_arguments("train", (TrainOptions, ContextDistillationConfig), [f"--{option}={value}"])


@pytest.mark.parametrize(("tracker", "said"), [("wandbb", "did you mean wandb"), ("comet_ml", "is not installed")])
def test_a_tracker_that_is_not_there_is_refused_before_a_model_is_loaded(tracker, said):
    with pytest.raises(InputError, match=said):
        parse_arguments("train", (ContextDistillationConfig,), ["--report_to", tracker])


def test_two_dataclasses_share_one_command_line(tmp_path):
    options, arguments = parse_arguments(
        "train",
        (TrainOptions, ContextDistillationConfig),
        ["--r", "3", "--output_dir", str(tmp_path), "--bf16", "false"],
    )
    assert options.r == 3 and arguments.output_dir == str(tmp_path)


def test_ctrl_c_while_a_command_works_says_that_a_rerun_continues(capsys, monkeypatch):
    monkeypatch.setattr(data, "write_data", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["data", "--source", "x", "--output", "y"]) == 130
    assert capsys.readouterr().err == "aag data: stopped; run the same command again to continue.\n"
