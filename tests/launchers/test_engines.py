"""Two processes train like one, whatever engine spreads the work: DDP, FSDP2, DeepSpeed's ZeRO-2 and ZeRO-3."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.integrations import HfTrainerDeepSpeedConfig

from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.train import TrainOptions
from aag_hf.trainers import ContextDistillationConfig

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("worker.py")
CPU = {"ACCELERATE_USE_CPU": "true"}
# DeepSpeed is left out without a word where Accelerate is told to use the CPU.
DEEPSPEED_CPU = {"DS_ACCELERATOR": "cpu", "ACCELERATE_TORCH_DEVICE": "cpu"}
ACCUMULATION = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
CHECKPOINTS = {"gradient_checkpointing": True}
needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed: pip install aag-hf[deepspeed]"
)
ENGINES = {
    "multi_gpu": ("MULTI_CPU", "DistributedDataParallel", CPU, ACCUMULATION),
    "fsdp2": ("FSDP", "FSDPPeftModelForCausalLM", {}, {"use_cpu": True, **CHECKPOINTS}),
    "deepspeed_zero2": ("DEEPSPEED", "DeepSpeedEngine", DEEPSPEED_CPU, {"ddp_backend": "gloo", **ACCUMULATION}),
    "deepspeed_zero3": ("DEEPSPEED", "DeepSpeedEngine", DEEPSPEED_CPU, {"ddp_backend": "gloo", **CHECKPOINTS}),
}


def load_worker():
    spec = importlib.util.spec_from_file_location("launched_worker", WORKER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def alone(tiny_llama_dir, tmp_path_factory):
    """The run on one process: its worker, its folder, and what it logged."""
    worker, output = load_worker(), tmp_path_factory.mktemp("alone")
    batches = {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 7}
    result, _ = worker.train(tiny_llama_dir, output, use_cpu=True, **batches)
    assert result["processes"] == 1
    return worker, output, result


@pytest.mark.parametrize(
    "engine", [pytest.param(name, marks=needs_deepspeed if "deepspeed" in name else ()) for name in ENGINES]
)
def test_two_processes_train_evaluate_and_save_as_one_does(engine, alone, start, tiny_llama_dir, tmp_path):
    distributed_type, wrapper, environment, changes = ENGINES[engine]
    changes = {"per_device_train_batch_size": 2, "per_device_eval_batch_size": 2, **changes}
    config = ["--config_file", f"configs/accelerate/{engine}.yaml", "--main_process_port", "0"]
    start("accelerate", "launch", *config, WORKER, tiny_llama_dir, tmp_path, json.dumps(changes), **environment)
    worker, folder, expected = alone
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["processes"], result["engine"], result["wrapped"]) == (2, distributed_type, wrapper)

    logs = [[entry for entry in run["log"] if "loss" in entry or "eval_loss" in entry] for run in (expected, result)]
    assert [entry["step"] for entry in logs[0]] == [1, 2, 3, 3]
    for theirs, ours in zip(*logs, strict=True):
        names = {name for name in theirs if "loss" in name or "entropy" in name or "kl" in name}
        assert len(names) == 3
        assert {name: ours[name] for name in names} == pytest.approx({name: theirs[name] for name in names}, rel=1e-4)
        assert ours["loss" if "loss" in ours else "eval_loss"] == pytest.approx(
            theirs["loss" if "loss" in theirs else "eval_loss"], rel=1e-6
        )

    paths = [path / "adapter" / "adapter_model.safetensors" for path in (folder, tmp_path)]
    before = {n: p for n, p in worker.make_student(tiny_llama_dir).state_dict().items() if "hyperlora_net" in n}
    trained, ours = map(load_file, paths)
    assert len(before) == len(trained)
    assert not any(
        torch.equal(tensor, before[name.replace("_net.", "_net.default.")]) for name, tensor in trained.items()
    )
    torch.testing.assert_close(ours, trained, rtol=1e-4, atol=2e-6)

    inputs = {"input_ids": torch.tensor([[5, 6, 7]]), "features": torch.ones(1, worker.FEATURES)}
    readers = [
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_llama_dir), path.parent) for path in paths
    ]
    logits = [reader.eval()(**inputs).logits for reader in readers]
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-5)

    assert "reentrant gradient checkpointing" in result["refusals"]["reentrant"]
    if engine == "fsdp2":
        assert "FSDP's activation checkpointing" in result["refusals"]["fsdp"]
        assert "holds only a shard" in result["refusals"]["answer_metrics"]
    if engine in ("multi_gpu", "deepspeed_zero2"):
        assert result["answered"] == [f"q{i}" for i in range(7)]


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_launch_configuration_is_one_that_accelerate_reads(path):
    config = load_config_from_file(str(path)).to_dict()
    assert ("deepspeed" in path.stem) == (config["distributed_type"] == "DEEPSPEED")
    if "deepspeed" in path.stem:
        engine = json.loads((ROOT / config["deepspeed_config"]["deepspeed_config_file"]).read_text())
        assert engine["zero_optimization"]["stage"] == int(path.stem[-1])


@needs_deepspeed
@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "deepspeed").glob("*.json")), ids=lambda path: path.stem)
def test_every_deepspeed_configuration_takes_what_it_leaves_open_from_the_paper_s_recipe(path, tiny_t5_dir):
    recipe = ["--config", str(ROOT / "configs" / "recipes" / "t5_paper.yaml"), "--use_cpu", "true"]
    _, arguments = parse_arguments("train", (TrainOptions, ContextDistillationConfig), recipe)
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5_dir)
    engine = HfTrainerDeepSpeedConfig(str(path))
    engine.trainer_config_process(arguments)
    engine.trainer_config_finalize(arguments, model, 1)
    assert "auto" not in json.dumps(engine.config)
    expected = {
        "train_micro_batch_size_per_gpu": 8,
        "gradient_clipping": 1.0,
        "bf16": {"enabled": True},
        "fp16": {"enabled": False},
    }
    assert expected.items() <= engine.config.items()
