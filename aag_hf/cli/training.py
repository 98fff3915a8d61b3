"""What both training commands share: the Trainer's run, its checkpoints and its last words."""

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import parse_flag_from_env
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments
from transformers.integrations import unset_hf_deepspeed_config
from transformers.trainer_utils import SaveStrategy, get_last_checkpoint

from aag_hf.cli.stage import file_digest, is_finished
from aag_hf.data.jsonl import write_whole
from aag_hf.errors import InputError
from aag_hf.hyperlora.adapter_scope import CONTAINER
from aag_hf.trainers.answer_trainer import AnswerTrainer

CHECKPOINTS = "checkpoints"
STARTED = "started_with.json"


# The Trainer's options that change what is learned; others, such as logging, may differ when a run resumes.
LEARNING_OPTIONS = (
    "seed",
    "learning_rate",
    "max_steps",
    "num_train_epochs",
    "warmup_steps",
    "weight_decay",
    "lr_scheduler_type",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "max_grad_norm",
    "alpha",
    "temperature",
    "temperature_schedule",
    "hidden_weight",
    "attention_weight",
    "alignment",
    "layers",
    "train_teacher",
    "teacher_learning_rate",
    "teacher_beta",
)


def settings_of(options: Any, arguments: Seq2SeqTrainingArguments) -> dict[str, Any]:
    """What determines the outcome of a training run: options, learning options and what the files hold."""
    chosen = {name: value for name, value in asdict(options).items() if name != "threads"}
    chosen |= {name: str(getattr(arguments, name)) for name in LEARNING_OPTIONS if hasattr(arguments, name)}
    files = {name: chosen[name] for name in ("train_file", "dev_file") if chosen[name]}
    return chosen | {f"{name}_digest": file_digest(path) for name, path in files.items() if Path(path).is_file()}


def begin(output_dir: Path, settings: dict[str, Any], arguments: Seq2SeqTrainingArguments) -> bool:
    """Point the Trainer at its checkpoint folder beside `output_dir`; ``False`` if there is nothing left to do.

    Raises:
        InputError: `output_dir`, or the checkpoints beside it, belong to a run with other settings; or a launcher's
            processes do not see each other.
    """
    started = int(os.environ.get("WORLD_SIZE", 1))
    if started != arguments.world_size:
        raise InputError(
            f"a launcher started {started} processes, and each would train alone: without a GPU set "
            "ACCELERATE_USE_CPU=true."
        )
    if is_finished(output_dir, settings):
        return False
    checkpoints = output_dir.with_name(f"{output_dir.name}.{CHECKPOINTS}")
    arguments.output_dir = str(checkpoints)
    record = checkpoints / STARTED
    if record.is_file() and json.loads(record.read_text(encoding="utf-8")) != json.loads(json.dumps(settings)):
        raise InputError(f"{checkpoints}: checkpoints of a run with other settings: remove them to start anew.")
    if arguments.should_save and arguments.save_strategy != SaveStrategy.NO:
        write_whole(json.dumps(settings, indent=2, sort_keys=True).encode(), record)
    return True


def run(trainer: Seq2SeqTrainer, arguments: Seq2SeqTrainingArguments) -> dict[str, Any]:
    """Train, from the last checkpoint if there is one; returns the last logged figures."""
    folder = Path(arguments.output_dir)
    checkpoint = arguments.resume_from_checkpoint or (get_last_checkpoint(str(folder)) if folder.is_dir() else None)
    result = trainer.train(resume_from_checkpoint=checkpoint)
    # Of the steps since it last logged, the Trainer knows this process's losses only.
    loss = trainer.accelerator.reduce(torch.tensor(result.training_loss, device=arguments.device), "mean")
    figures = {"train_loss": loss.item(), "train_seconds": result.metrics["train_runtime"]}
    if trainer.eval_dataset is not None:
        figures |= trainer.evaluate()
    if trainer.is_world_process_zero() and folder.is_dir() and not any(folder.iterdir()):
        # The Trainer makes its folder even if it is to save nothing.
        folder.rmdir()
    return figures


@contextmanager
def whole_weights(arguments: Seq2SeqTrainingArguments) -> Iterator[None]:
    """Load models whole in every process, also where ZeRO-3 would shard them as they are read.

    Features are encoded before an engine runs that could gather shards; the engine shards the reader when it starts.
    """
    unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if arguments.deepspeed_plugin is not None:
            arguments.deepspeed_plugin.set_deepspeed_weakref()


def is_sharding(arguments: Seq2SeqTrainingArguments) -> bool:
    """Whether the engine leaves no process the whole model: FSDP and ZeRO-3."""
    plugin = arguments.deepspeed_plugin
    zero3 = plugin is not None and plugin.hf_ds_config.is_zero3()
    return zero3 or bool(arguments.fsdp) or parse_flag_from_env("ACCELERATE_USE_FSDP")


def gathered_weights(trainer: AnswerTrainer) -> dict[str, torch.Tensor] | None:
    """What was trained, gathered on the first process, of a model that none holds whole; ``None`` for other models.

    Every process must call it.
    """
    return trainer.accelerator.get_state_dict(trainer.model_wrapped) if trainer.is_sharded else None


def environment(arguments: Seq2SeqTrainingArguments) -> dict[str, str]:
    """Where a run took place, as far as it can be known: for the model card."""
    on_gpu = arguments.device.type == "cuda"
    device = torch.cuda.get_device_name(arguments.device) if on_gpu else platform.processor() or platform.machine()
    packages = {name: version(name) for name in ("torch", "transformers", "peft", "accelerate")}
    return {"device": device, "processes": str(arguments.world_size), **packages}


def trained_parts(model: torch.nn.Module) -> dict[str, int]:
    """How many numbers training changes: in hypernetworks, in LoRA matrices, and by name in modules trained whole."""
    parts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = _part_of(name.removeprefix("base_model.model."))
            parts[part] = parts.get(part, 0) + parameter.numel()
    return parts


def _part_of(name: str) -> str:
    if name.startswith(f"{CONTAINER}."):
        return "hypernetworks"
    if ".lora_" in name:
        return "LoRA"
    whole, _, saved = name.partition(".modules_to_save.")
    return whole.rpartition(".")[2] if saved else name.partition(".")[0]
