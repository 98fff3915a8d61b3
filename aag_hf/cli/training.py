"""What both training commands share: the Trainer's run, its checkpoints and the figures at its end."""

import json
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import parse_flag_from_env
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments
from transformers.integrations import unset_hf_deepspeed_config

from aag_hf.awakening.loading import saved_config, saved_directory
from aag_hf.cli.checkpoints import WholeRun, last_whole_checkpoint, remove_incomplete, remove_unused
from aag_hf.cli.launcher import started_processes
from aag_hf.cli.stage import CHECKPOINTS, beside, claimed, is_finished, manifest, real
from aag_hf.cli.training_progress import TrainingProgress
from aag_hf.data.mapped import open_records
from aag_hf.data.sampling import sample_records
from aag_hf.errors import InputError
from aag_hf.hub.cards import without_folder
from aag_hf.hyperlora.adapter_scope import CONTAINER
from aag_hf.manifest import Manifest
from aag_hf.trainers.answer_trainer import AnswerTrainer

Records = Sequence[dict[str, Any]]

# The Trainer's arguments that cannot change what is learned: logging, saving, loading ahead, the Hub, folders.
# fmt: off
WITHOUT_EFFECT = {
    "output_dir", "do_train", "do_eval", "do_predict", "local_rank", "debug", "disable_tqdm", "skip_memory_metrics",
    "ddp_timeout", "torch_empty_cache_steps", "restore_callback_states_from_checkpoint",
    "include_num_input_tokens_seen", "logging_strategy", "logging_steps", "logging_first_step", "log_on_each_node",
    "log_level", "log_level_replica", "report_to", "run_name", "project", "trackio_space_id", "trackio_bucket_id",
    "trackio_static_space_id", "dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers",
    "dataloader_prefetch_factor", "dataloader_multiprocessing_context", "push_to_hub", "hub_token",
    "hub_private_repo", "hub_model_id", "hub_strategy", "hub_always_push", "hub_revision", "save_on_each_node",
    "save_only_model", "enable_jit_checkpoint",
}
# These matter only if the best checkpoint is taken in the end. The time of evaluation is not one of them, since it
# draws random numbers, as dropout does.
OF_THE_BEST = {
    "save_strategy", "save_steps", "save_total_limit", "metric_for_best_model", "greater_is_better",
    "per_device_eval_batch_size", "prediction_loss_only", "eval_accumulation_steps", "eval_do_concat_batches",
    "eval_use_gather_object", "include_for_metrics", "batch_eval_metrics",
}
# fmt: on
# Beside the weights: what was logged, as a plot.
CURVES = "curves.png"
INPUTS = ("train_file", "dev_file", "model_name_or_path", "teacher")
_OF_THIS_MACHINE = ("train_file", "dev_file", "teacher", "teacher_cache_dir", "threads", "overwrite")


def manifest_of(command: str, options: Any, arguments: Seq2SeqTrainingArguments) -> Manifest:
    """What determines the outcome of a training run: options, arguments, processes and the content of the inputs."""
    chosen = {n: v for n, v in asdict(options).items() if n not in (*INPUTS, "threads", "overwrite")}
    if "teacher_cache_dir" in chosen:
        # Its place has no effect. That there is a cache has one, since it does not keep all logits.
        chosen["teacher_cache_dir"] = chosen["teacher_cache_dir"] is not None
    without_effect = WITHOUT_EFFECT if arguments.load_best_model_at_end else WITHOUT_EFFECT | OF_THE_BEST
    told = {name: value for name, value in arguments.to_dict().items() if name not in without_effect}
    inputs = {name: getattr(options, name) for name in INPUTS if getattr(options, name, None)}
    if "teacher" in inputs:
        inputs["teacher_base"] = saved_config(saved_directory(inputs["teacher"])).base_model_name_or_path
    if isinstance(arguments.deepspeed, str) and Path(arguments.deepspeed).is_file():
        inputs["deepspeed"] = told.pop("deepspeed")
    settings = chosen | told | {"processes": arguments.world_size * max(arguments.n_gpu, 1)}
    return manifest(command, json.loads(json.dumps(settings, default=str)), **inputs)


def recipe_of(options: Any, arguments: Seq2SeqTrainingArguments) -> dict[str, Any]:
    """For the model card: the options, and the arguments that differ from their defaults."""
    chosen = {name: without_folder(v) for name, v in asdict(options).items() if name not in _OF_THIS_MACHINE}
    defaults = {field.name: field.default for field in fields(arguments)}
    plain = {n: v for n, v in arguments.to_dict().items() if isinstance(v, (str, int, float))}
    told = {n: v for n, v in plain.items() if n not in WITHOUT_EFFECT | OF_THE_BEST}
    return chosen | {name: value for name, value in told.items() if value != defaults[name]}


@contextmanager
def training_output(
    output_dir: Path, made_by: Manifest, arguments: Seq2SeqTrainingArguments, overwrite: bool
) -> Iterator[bool]:
    """Keep other runs away from `output_dir`, and point the Trainer at its checkpoint folder beside it.

    Gives whether the output is finished. One process finds out for all.

    Raises:
        InputError: `output_dir`, or the checkpoints beside it, belong to another run; another run is writing them; or
            a launcher's processes do not see each other.
    """
    if not output_dir.name:
        raise InputError(f"output_dir is {str(output_dir)!r}: name a folder inside of it.")
    if output_dir.name.endswith(f".{CHECKPOINTS}"):
        raise InputError(f"{output_dir}: such names belong to checkpoints of other outputs: choose another output.")
    output_dir = real(output_dir)
    started = started_processes()
    if started != arguments.world_size:
        raise InputError(
            f"a launcher started {started} processes, and each would train alone: without a GPU set "
            "ACCELERATE_USE_CPU=true."
        )
    arguments.output_dir = str(beside(output_dir, CHECKPOINTS))
    is_main = arguments.process_index == 0
    with ExitStack() as stack:
        with arguments.main_process_first(local=False, desc="output"):
            if is_main:
                finished = stack.enter_context(claimed(output_dir, made_by, overwrite))
                stack.callback(remove_unused, arguments)
                if not finished:
                    remove_incomplete(arguments, made_by)
            else:
                finished = is_finished(output_dir, made_by)
        yield finished


def sampled_records(options: Any, seed: int) -> tuple[Records, Records | None]:
    """The training records and, if there are any, the development records, as many as `options` asks for.

    Raises:
        InputError: A file cannot be read.
    """
    train = sample_records(open_records(options.train_file), options.max_train_samples, seed)
    dev = sample_records(open_records(options.dev_file), options.max_eval_samples, seed) if options.dev_file else None
    return train, dev


def run(trainer: Seq2SeqTrainer, arguments: Seq2SeqTrainingArguments, made_by: Manifest) -> dict[str, Any]:
    """Train, from the last whole checkpoint if there is one, and return the last logged figures of the whole run."""
    whole_run = WholeRun(trainer, made_by)
    trainer.add_callback(whole_run)
    # Without an accelerator torch would warn that it pins nothing.
    arguments.dataloader_pin_memory = arguments.dataloader_pin_memory and arguments.device.type != "cpu"
    checkpoint = arguments.resume_from_checkpoint or last_whole_checkpoint(arguments)
    if checkpoint is not None and trainer.is_world_process_zero():
        print(f"{checkpoint}: training goes on from here.", file=sys.stderr)
    with TrainingProgress(trainer):
        result = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    # The Trainer knows only this process's losses of the steps since it last logged.
    loss = trainer.accelerator.reduce(torch.tensor(result.training_loss, device=arguments.device), "mean")
    figures = {"train_loss": loss.item(), "train_seconds": whole_run.seconds}
    if trainer.eval_dataset is not None:
        figures |= trainer.evaluate()
    return figures


def check_quantized(options: Any, arguments: Seq2SeqTrainingArguments) -> None:
    """Refuse training that does not work over weights in few bits.

    Raises:
        InputError: All weights would be trained, or an engine would shard them.
    """
    if options.quantization is None:
        return
    if options.method == "full":
        raise InputError(f"quantization {options.quantization}: such weights are not trained: choose another method.")
    if is_sharding(arguments):
        raise InputError(
            f"quantization {options.quantization}: FSDP and ZeRO-3 cannot shard such weights: leave it out, or start "
            "with DDP or ZeRO-1."
        )


@contextmanager
def whole_weights(arguments: Seq2SeqTrainingArguments) -> Iterator[None]:
    """Load models whole in every process, even if ZeRO-3 would shard them while they are read.

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
    """The trained weights of a sharded model, gathered on the first process; ``None`` for other models.

    Every process must call it.
    """
    return trainer.accelerator.get_state_dict(trainer.model_wrapped) if trainer.is_sharded else None


def environment(arguments: Seq2SeqTrainingArguments) -> dict[str, str]:
    """For the model card: where a run took place, as far as it can be known."""
    on_gpu = arguments.device.type == "cuda"
    device = torch.cuda.get_device_name(arguments.device) if on_gpu else platform.processor() or platform.machine()
    packages = {name: version(name) for name in ("torch", "transformers", "peft", "accelerate")}
    return {"device": device, "processes": str(arguments.world_size), **packages}


def trained_parts(model: torch.nn.Module) -> dict[str, int]:
    """How many numbers training changes: in hypernetworks, in LoRA matrices, and in each module that is trained
    whole."""
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
