"""The commands under a launcher: two processes do the work of one, and one of them writes."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from aag_hf import AwakeningModel
from aag_hf.cli.main import main
from aag_hf.data import load_countries, read_records, write_records

TRAINER = ["--max_steps", "2", "--report_to", "none", "--disable_tqdm", "true", "--learning_rate", "0.01"]
CPU = {"ACCELERATE_USE_CPU": "true"}
# The dashes keep torchrun from taking `--r` for the beginning of an option of its own.
TWO = ["--nproc_per_node", "2", "--standalone", "-m", "--"]


@pytest.fixture(scope="module")
def files(tmp_path_factory, tiny_llama_dir):
    """The model, and records for training and for evaluation: 11 are no multiple of any batch."""
    folder = tmp_path_factory.mktemp("data")
    records = [{**record, "compressed_context": record["ctxs"][0]["text"]} for record in load_countries()["train"][:16]]
    for name, part in {"train": records, "dev": records[:11]}.items():
        write_records(part, folder / f"{name}.jsonl")
    return ["--model_name_or_path", tiny_llama_dir, "--target_modules", "q_proj", "down_proj", "--r", "2"], folder


@pytest.fixture(scope="module")
def readers(files, start, tmp_path_factory):
    """A reader trained on one process, and one trained on two with DDP."""
    model, data = files
    output = tmp_path_factory.mktemp("readers")
    options = [*model, "--feature_dim", "8", "--train_file", data / "train.jsonl", "--dev_file", data / "dev.jsonl"]
    options += ["--answer_dev_file", "true", *TRAINER, "--per_device_eval_batch_size", "4"]
    alone = [*options, "--per_device_train_batch_size", "8", "--output_dir", output / "one", "--save_strategy", "no"]
    assert main(["train", *map(str, alone)]) == 0
    both = [*options, "--per_device_train_batch_size", "4", "--output_dir", output / "two", "--save_steps", "1"]
    printed = start("torchrun", *TWO, "aag_hf.cli.train", *both, **CPU)
    assert printed.count("trained parameters") == 1
    return output


def test_train_gives_the_same_reader_and_leaves_only_what_one_process_leaves(readers):
    one, two = (AwakeningModel.from_pretrained(readers / name) for name in ("one", "two"))
    ours = dict(two.reader.named_parameters())
    for name, parameter in one.reader.named_parameters():
        torch.testing.assert_close(ours[name], parameter, rtol=1e-4, atol=2e-6)
    for name in ("train_loss", "eval_loss", "eval_exact_match", "eval_f1"):
        assert two.config.training_figures[name] == pytest.approx(one.config.training_figures[name], rel=1e-4)
    assert sorted(path.name for path in readers.iterdir()) == ["one", "two", "two.checkpoints"]


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")
def test_train_with_weights_in_shards_encodes_distils_and_saves_like_one_process(files, start, tmp_path):
    """ZeRO-3 shards what it reads, and the student's base apart from the teacher's."""
    model, data = files
    options = [*model, "--feature_dim", "8", "--train_file", data / "train.jsonl", "--save_strategy", "no", *TRAINER]
    teacher = ["--method", "lora", "--context", "passages", "--output_dir", tmp_path / "teacher"]
    assert main(["train", *map(str, [*options, *teacher])]) == 0
    options += ["--teacher", tmp_path / "teacher"]
    one = ["--per_device_train_batch_size", "8", "--output_dir", tmp_path / "one"]
    assert main(["train", *map(str, [*options, *one])]) == 0
    config = ["--config_file", "configs/accelerate/deepspeed_zero3.yaml", "--main_process_port", "0", "-m"]
    two = ["--per_device_train_batch_size", "4", "--output_dir", tmp_path / "two", "--ddp_backend", "gloo"]
    environment = {"DS_ACCELERATOR": "cpu", "ACCELERATE_TORCH_DEVICE": "cpu"}
    start("accelerate", "launch", *config, "aag_hf.cli.train", *options, *two, **environment)
    paths = [tmp_path / name / "reader" / "adapter_model.safetensors" for name in ("one", "two")]
    theirs, ours = map(load_file, paths)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-6)
    assert AwakeningModel.from_pretrained(tmp_path / "two").question_encoder is not None


@pytest.fixture(scope="module")
def others(readers, files, start, tmp_path_factory):
    """Where the other commands wrote on two processes, and what they printed."""
    model, data = files
    folder = tmp_path_factory.mktemp("others")
    evaluate = ["evaluate", *evaluated(readers, data), "--output_dir", folder / "evaluated"]
    generator = ["train-generator", *model, "--train_file", data / "train.jsonl", "--save_strategy", "no", *TRAINER]
    generator += ["--output_dir", folder / "generator", "--per_device_train_batch_size", "4"]
    generate = ["generate", *model[:2], "--generator", folder / "generator", "--input", data / "dev.jsonl"]
    generate += ["--output", folder / "generated.jsonl"]
    commands = json.dumps([list(map(str, command)) for command in (evaluate, generator, generate)])
    return folder, start("torchrun", *TWO[:-2], Path(__file__).with_name("commands.py"), commands, **CPU)


def evaluated(readers, data):
    options = ["--model", readers / "one", "--input", data / "dev.jsonl", "--batch_size", "3"]
    return [*map(str, options), "--controls", "shuffled", "mean"]


def test_evaluate_answers_each_question_on_one_process_with_the_same_results(others, readers, files, tmp_path):
    _, data = files
    assert main(["evaluate", *evaluated(readers, data), "--output_dir", str(tmp_path)]) == 0
    one, two = (json.loads((folder / "results.json").read_text()) for folder in (tmp_path, others[0] / "evaluated"))
    for theirs, ours in zip(one, two, strict=True):
        assert [row["id"] for row in ours["predictions"]] == [r["id"] for r in read_records(data / "dev.jsonl")]
        assert ours | {"seconds": 0} == theirs | {"seconds": 0}
    assert others[1].count("11 questions of") == 1


def test_train_generator_writes_one_generator_and_generate_wants_one_process(others):
    folder, printed = others
    assert (folder / "generator" / "adapter_model.safetensors").is_file()
    assert printed.count("train_loss 5.") == 1
    assert printed.count("`aag generate` works on one process, and 2 were started") == 2
    assert sorted(path.name for path in folder.iterdir()) == ["evaluated", "generator"]
    assert [
        printed.count(f"{command} gave {rc}") for command, rc in [("evaluate", 0), ("generator", 0), ("generate", 2)]
    ] == [2, 2, 2]
