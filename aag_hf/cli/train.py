"""``aag train``: stage 2. Trains a reader, whatever its adapter, context and teacher."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import PartialState
from torch import nn
from torch.utils.data import ConcatDataset
from transformers import set_seed

from aag_hf.awakening import AwakeningModel
from aag_hf.awakening.loading import load_language_model, saved_config
from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.boundary import run_command
from aag_hf.cli.learning_rate import ReaderArguments, settle_learning_rate
from aag_hf.cli.output import plain_console
from aag_hf.cli.processes import use_threads
from aag_hf.cli.stage import lies_in, new_directory, real
from aag_hf.cli.teacher import set_up_teacher
from aag_hf.cli.train_options import TrainOptions
from aag_hf.cli.training import (
    CURVES,
    check_quantized,
    environment,
    gathered_weights,
    manifest_of,
    recipe_of,
    run,
    sampled_records,
    trained_parts,
    training_output,
    whole_weights,
)
from aag_hf.cli.untrained import calibrate_on, documents_of, untrained_model, upper_layers, with_features
from aag_hf.collators import DataCollatorForContextDistillation
from aag_hf.errors import InputError
from aag_hf.evaluation import ReaderMetrics
from aag_hf.evaluation.curves import plot_curves
from aag_hf.manifest import Manifest
from aag_hf.trainers import ContextDistillationConfig, ContextDistillationTrainer
from aag_hf.trainers.lower_layers import WithLowerStates

Records = Sequence[dict[str, Any]]


def train(options: TrainOptions, arguments: ContextDistillationConfig) -> Path:
    """Train a reader and save it as an [`~aag_hf.AwakeningModel`] in ``arguments.output_dir``.

    Returns:
        The output folder; it appears when training is complete.

    Raises:
        InputError: Options that do not fit each other, files that cannot be used, or a folder of another run.
    """
    if not options.train_file:
        raise InputError("train_file is missing: name the training records.")
    use_threads(options.threads)
    output_dir = real(Path(arguments.output_dir))
    _check_cache_place(options, output_dir)
    made_by = manifest_of("train", options, arguments)
    with training_output(output_dir, made_by, arguments, options.overwrite) as finished:
        if not finished:
            _train(options, arguments, output_dir, made_by)
    return output_dir


def _check_cache_place(options: TrainOptions, output_dir: Path) -> None:
    """The cache must not become a part of an output, nor change what the teacher's content is."""
    if options.teacher_cache_dir is None:
        return
    for name, folder in (("output_dir", output_dir), ("teacher", str(options.teacher))):
        if lies_in(options.teacher_cache_dir, folder):
            raise InputError(f"{options.teacher_cache_dir}: lies in {name}, {folder}: keep teacher_cache_dir apart.")


def _train(options: TrainOptions, arguments: ContextDistillationConfig, output_dir: Path, made_by: Manifest) -> None:
    check_quantized(options, arguments)
    set_seed(arguments.seed)
    train_records, dev_records = sampled_records(options, arguments.seed)
    records = ConcatDataset([train_records, dev_records]) if dev_records else train_records
    with whole_weights(arguments):
        base = load_language_model(options.model_name_or_path, options.fid, **options.loading_arguments())
        base.to(arguments.device)
        model = untrained_model(options, base, train_records)
        collator = replace(model.reader_collator(), padding_free=options.padding_free)
        if model.document_encoder is not None:
            collator.documents = documents_of(model, train_records)
            calibrate_on(model.reader, collator, train_records)
        teacher = None if options.teacher is None else set_up_teacher(options, arguments, base, collator, records)
    if model.question_encoder is not None:
        train_records = with_features(train_records, model)
        dev_records = with_features(dev_records, model) if dev_records else None
    trainer = _build_trainer(options, arguments, model, teacher, collator, train_records, dev_records)
    parts = trained_parts(model.reader)
    if trainer.is_world_process_zero():
        if model.config.chat:
            plain_console().print("Asked in turns of a chat, by the tokenizer's template.")
        plain_console().print("Trained: " + ", ".join(f"{name} {count:,}" for name, count in parts.items()))
    figures = run(trainer, arguments, made_by)
    weights = gathered_weights(trainer)
    if trainer.is_world_process_zero():
        model.config.trained_parameters = sum(parts.values())
        model.config.training_figures = figures
        model.config.training_recipe = recipe_of(options, arguments)
        model.config.training_environment = environment(arguments)
        with new_directory(output_dir, made_by) as directory:
            model.save_pretrained(directory, reader_weights=weights)
            plot_curves(trainer.state.log_history, directory / CURVES)
            if teacher is not None and arguments.train_teacher:
                teacher.save_pretrained(directory / "teacher")
    trainer.accelerator.wait_for_everyone()


def _build_trainer(
    options: TrainOptions,
    arguments: ContextDistillationConfig,
    model: AwakeningModel,
    teacher: AwakeningModel | None,
    collator: DataCollatorForContextDistillation,
    train_records: Records,
    dev_records: Records | None,
) -> ContextDistillationTrainer:
    trained: nn.Module = model.reader
    reading: Any = collator
    if options.keep_lower_states:
        upper = upper_layers(options, arguments, model)
        trained, reading = upper.model, WithLowerStates(collator, upper)
    return ContextDistillationTrainer(
        model=trained,
        teacher_model=None if teacher is None else teacher.reader,
        args=arguments,
        train_dataset=train_records,
        eval_dataset=dev_records,
        data_collator=reading,
        answer_metrics=ReaderMetrics(model, arguments.per_device_eval_batch_size) if options.answer_dev_file else None,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    options, arguments = parse_arguments("train", (TrainOptions, ReaderArguments), argv)
    settle_learning_rate(arguments, options.adapter_from if options.method == "aag" else options.method)
    output_dir = train(options, arguments)
    if not PartialState().is_main_process:
        return
    config = saved_config(output_dir)
    figures = ", ".join(f"{name} {value:.4g}" for name, value in config.training_figures.items())
    plain_console().print(f"{output_dir}: {config.trained_parameters:,} trained parameters; {figures}")


if __name__ == "__main__":
    sys.exit(run_command("train", lambda: main(sys.argv[1:])))
