"""The commands under each launcher: two processes do the work of one, and one of them writes."""

import importlib.util
import json
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from aag_hf import AwakeningConfig, AwakeningModel
from aag_hf.cli.main import main
from aag_hf.data import load_countries, read_records, write_records

TRAINER = ["--max_steps", "2", "--report_to", "none", "--disable_tqdm", "true", "--learning_rate", "0.01"]
CPU = {"ACCELERATE_USE_CPU": "true"}
DEEPSPEED_CPU = {"DS_ACCELERATOR": "cpu", "ACCELERATE_TORCH_DEVICE": "cpu"}
COMMANDS = Path(__file__).with_name("commands.py")
needs_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)
EIGHT_BITS = ["--quantization", "8bit", "--save_strategy", "no"]
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
def reader_options(files):
    model, data = files
    options = ["train", *model, "--feature_dim", "8", *TRAINER, "--per_device_eval_batch_size", "4"]
    return [*options, "--train_file", data / "train.jsonl", "--dev_file", data / "dev.jsonl"]


@pytest.fixture(scope="module")
def generator_options(files):
    model, data = files
    return ["train-generator", *model, "--train_file", data / "train.jsonl", "--save_strategy", "no", *TRAINER]


@pytest.fixture(scope="module")
def readers(reader_options, start, tmp_path_factory):
    """A reader trained on one process, and one trained on two with DDP."""
    output = tmp_path_factory.mktemp("readers")
    options = [*reader_options, "--answer_dev_file", "true"]
    alone = [*options, "--per_device_train_batch_size", "8", "--output_dir", output / "one", "--save_strategy", "no"]
    assert main(list(map(str, alone))) == 0
    both = [*options[1:], "--per_device_train_batch_size", "4", "--output_dir", output / "two", "--save_steps", "1"]
    printed = start("torchrun", *TWO, "aag_hf.cli.train", *both, **CPU)
    assert printed.count("trained parameters") == 1
    return output


@pytest.fixture(scope="module")
def generator(generator_options, start, tmp_path_factory):
    """One trained on one process, which the launcher starts as plain Python."""
    output = tmp_path_factory.mktemp("generators") / "one"
    config = ["--config_file", "configs/accelerate/single.yaml", "-m", "aag_hf.cli.train_generator"]
    alone = [*generator_options[1:], "--per_device_train_batch_size", "8", "--output_dir", output]
    start("accelerate", "launch", *config, *alone, **CPU)
    return output


def on_two(options, output, *more):
    """The command that does on each of two processes half of what one alone does, for `commands.py`."""
    return list(map(str, [*options, "--per_device_train_batch_size", "4", "--output_dir", output, *more]))


def assert_same_adapter(two, one):
    theirs, ours = (load_file(folder / "adapter_model.safetensors") for folder in (one, two))
    # Adam divides each gradient by its own size, so where it is almost 0 the order of a sum shows in the step.
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=5e-5)


def assert_same_reader(two, one, *figures):
    """The same weights and figures, and really trained on two processes."""
    assert_same_adapter(two / "reader", one / "reader")
    theirs, ours = map(AwakeningConfig.from_pretrained, (one, two))
    assert (theirs.training_environment["processes"], ours.training_environment["processes"]) == ("1", "2")
    for name in ("train_loss", "eval_loss", *figures):
        assert ours.training_figures[name] == pytest.approx(theirs.training_figures[name], rel=1e-4)
    assert AwakeningModel.from_pretrained(two).question_encoder is not None


def assert_same_in_8_bits(two, reader_options, one):
    """Rounding to 8 bits differs with the rows of a batch, and so do the two runs, a little."""
    alone = [*reader_options, "--per_device_train_batch_size", "8", "--output_dir", one, *EIGHT_BITS]
    assert main(list(map(str, alone))) == 0
    theirs, ours = (load_file(folder / "reader" / "adapter_model.safetensors") for folder in (one, two))
    torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-3)


def test_train_gives_the_same_reader_and_leaves_only_what_one_process_leaves(readers):
    assert_same_reader(readers / "two", readers / "one", "eval_exact_match", "eval_f1")
    assert sorted(path.name for path in readers.iterdir()) == ["one", "two", "two.checkpoints"]


@needs_deepspeed
@pytest.mark.parametrize("bits", [None, pytest.param(8, marks=needs_bitsandbytes)])
def test_train_under_deepspeed_s_launcher_with_optimizer_states_in_shards(
    bits, readers, reader_options, start, tmp_path
):
    zero1 = ["--deepspeed", "configs/deepspeed/zero1.json", "--save_strategy", "no"]
    command = on_two(reader_options, tmp_path / "two", *zero1, *(EIGHT_BITS if bits else ()))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    launch = ["--num_accelerators", 2, "--master_port", port, COMMANDS, json.dumps([command])]
    printed = start("deepspeed", *launch, ACCELERATE_USE_DEEPSPEED="true", **DEEPSPEED_CPU)
    assert printed.count("train gave 0") == 2
    if bits:
        assert_same_in_8_bits(tmp_path / "two", reader_options, tmp_path / "one")
    else:
        assert_same_reader(tmp_path / "two", readers / "one")


@pytest.mark.by_hand
def test_both_training_commands_with_weights_in_fsdp2_s_shards(
    readers, reader_options, generator, generator_options, start, tmp_path
):
    options = ["--save_strategy", "no", "--use_cpu", "true"]
    commands = [
        on_two(reader_options, tmp_path / "reader", *options),
        on_two(generator_options, tmp_path / "generator", *options),
        on_two(reader_options, tmp_path / "few_bits", "--quantization", "8bit", *options),
    ]
    config = ["--config_file", "configs/accelerate/fsdp2.yaml", "--main_process_port", "0"]
    printed = start("accelerate", "launch", *config, COMMANDS, json.dumps(commands))
    assert [printed.count(f"{name} gave 0") for name in ("train", "train-generator")] == [2, 2]
    assert printed.count("FSDP and ZeRO-3 cannot shard such weights") == 2
    assert_same_reader(tmp_path / "reader", readers / "one")
    assert_same_adapter(tmp_path / "generator", generator)


@needs_deepspeed
def test_train_with_weights_in_shards_encodes_distils_and_saves_like_one_process(reader_options, start, tmp_path):
    """ZeRO-3 shards what it reads, and the student's base apart from the teacher's."""
    options = [*reader_options, "--save_strategy", "no"]
    teacher = ["--method", "lora", "--context", "passages", "--output_dir", tmp_path / "teacher"]
    assert main(list(map(str, [*options, *teacher]))) == 0
    options += ["--teacher", tmp_path / "teacher"]
    one = ["--per_device_train_batch_size", "8", "--output_dir", tmp_path / "one"]
    assert main(list(map(str, [*options, *one]))) == 0
    config = ["--config_file", "configs/accelerate/deepspeed_zero3.yaml", "--main_process_port", "0", "-m"]
    two = ["--per_device_train_batch_size", "4", "--output_dir", tmp_path / "two", "--ddp_backend", "gloo"]
    start("accelerate", "launch", *config, "aag_hf.cli.train", *options[1:], *two, **DEEPSPEED_CPU)
    assert_same_reader(tmp_path / "two", tmp_path / "one")


@pytest.fixture(scope="module")
def others(readers, files, reader_options, generator_options, start, tmp_path_factory):
    """Where the other commands wrote on two processes, and what they printed."""
    _, data = files
    folder = tmp_path_factory.mktemp("others")
    evaluate = ["evaluate", *evaluated(readers, data), "--output_dir", folder / "evaluated"]
    generator = on_two(generator_options, folder / "generator")
    written = [command for _, command in writing(files, folder, folder / "generator")]
    eight_bits = on_two(reader_options, tmp_path_factory.mktemp("eight_bits") / "two", *EIGHT_BITS)
    commands = json.dumps([list(map(str, command)) for command in (evaluate, generator, *written, eight_bits)])
    return folder, start("torchrun", *TWO[:-2], COMMANDS, commands, **CPU)


def writing(files, folder, generator):
    """The commands that write records, each with its output; the batches are no multiple of two."""
    model, data = files
    retrieve = ["retrieve", "--pool", data / "train.jsonl", "--top_k", 3, "--input", data / "dev.jsonl"]
    compress = ["compress", *model[:2], "--input", folder / "found.jsonl", "--batch_size", 4, "--dtype", "float32"]
    generate = ["generate", *model[:2], "--generator", generator, "--input", data / "dev.jsonl", "--batch_size", 4]
    outputs = {"found.jsonl": retrieve, "short.jsonl.gz": compress, "written.jsonl": generate}
    return [(name, [*map(str, command), "--output", str(folder / name)]) for name, command in outputs.items()]


@needs_bitsandbytes
def test_train_over_a_base_in_8_bits(others, reader_options, tmp_path):
    assert_same_in_8_bits(next(others[0].parent.glob("eight_bits*/two")), reader_options, tmp_path / "one")


def evaluated(readers, data):
    options = ["--model", readers / "one", "--input", data / "dev.jsonl", "--batch_size", "3"]
    return [*map(str, options), "--controls", "shuffled", "mean"]


def test_evaluate_answers_each_question_on_one_process_with_the_same_results(others, readers, files, tmp_path):
    _, data = files
    assert main(["evaluate", *evaluated(readers, data), "--output_dir", str(tmp_path)]) == 0
    one, two = (json.loads((folder / "results.json").read_text()) for folder in (tmp_path, others[0] / "evaluated"))
    for theirs, ours in zip(one, two, strict=True):
        assert ours | {"seconds": 0} == theirs | {"seconds": 0}
    one, two = ((folder / "predictions.jsonl").read_text() for folder in (tmp_path, others[0] / "evaluated"))
    assert one == two
    asked = [record["id"] for record in read_records(data / "dev.jsonl")]
    assert [json.loads(line)["id"] for line in two.splitlines()] == 3 * asked
    assert others[1].count("11 questions of") == 1


def test_train_generator_writes_one_generator(others, generator):
    folder, printed = others
    assert_same_adapter(folder / "generator", generator)
    assert printed.count(f"{folder / 'generator'}: ") == 1
    assert [printed.count(f"{command} gave 0") for command in ("evaluate", "train-generator")] == [2, 2]


def test_what_two_processes_write_is_what_one_writes(others, files, tmp_path):
    folder, printed = others
    for name, command in writing(files, tmp_path, folder / "generator"):
        assert main(command) == 0
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()
        assert printed.count(f"{command[0]} gave 0") == 2
        assert printed.count(f"written to {folder / name}") == 1
    assert not list(folder.glob("*.partial"))
