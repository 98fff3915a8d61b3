"""What both training commands share: the Trainer's run, its checkpoints and its last words."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments
from transformers.trainer_utils import SaveStrategy, get_last_checkpoint

from aag_hf.cli.stage import file_digest, is_finished
from aag_hf.data.errors import InputError
from aag_hf.hyperlora.state import CONTAINER

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
        InputError: `output_dir`, or the checkpoints beside it, belong to a run with other settings.
    """
    if is_finished(output_dir, settings):
        return False
    checkpoints = output_dir.with_name(f"{output_dir.name}.{CHECKPOINTS}")
    arguments.output_dir = str(checkpoints)
    started = checkpoints / STARTED
    if started.is_file() and json.loads(started.read_text(encoding="utf-8")) != json.loads(json.dumps(settings)):
        raise InputError(f"{checkpoints}: checkpoints of a run with other settings: remove them to start anew.")
    if arguments.should_save and arguments.save_strategy != SaveStrategy.NO:
        checkpoints.mkdir(parents=True, exist_ok=True)
        started.write_text(json.dumps(settings, indent=2, sort_keys=True), encoding="utf-8")
    return True


def run(trainer: Seq2SeqTrainer, arguments: Seq2SeqTrainingArguments) -> dict[str, Any]:
    """Train, from the last checkpoint if there is one; returns the last logged figures."""
    folder = Path(arguments.output_dir)
    checkpoint = arguments.resume_from_checkpoint or (get_last_checkpoint(str(folder)) if folder.is_dir() else None)
    result = trainer.train(resume_from_checkpoint=checkpoint)
    figures = {"train_loss": result.training_loss, "train_seconds": result.metrics["train_runtime"]}
    if trainer.eval_dataset is not None:
        figures |= trainer.evaluate()
    if trainer.is_world_process_zero() and folder.is_dir() and not any(folder.iterdir()):
        # The Trainer makes its folder even if it is to save nothing.
        folder.rmdir()
    return figures


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
