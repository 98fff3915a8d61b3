"""``aag train-generator``: stage 1. Trains a model to write the compressed context of a question from memory."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from peft import LoraConfig, get_peft_model
from torch.utils.data import Subset
from transformers import set_seed

from aag_hf.awakening.loading import is_encoder_decoder, load_language_model, load_tokenizer
from aag_hf.awakening.saving import settle
from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.boundary import run_command
from aag_hf.cli.learning_rate import GeneratorArguments, settle_learning_rate
from aag_hf.cli.options import AdapterOptions, ModelOptions, SampleOptions
from aag_hf.cli.output import plain_console
from aag_hf.cli.processes import use_threads
from aag_hf.cli.stage import OVERWRITE, new_directory, real
from aag_hf.cli.training import (
    CURVES,
    check_quantized,
    gathered_weights,
    manifest_of,
    run,
    sampled_records,
    training_output,
    whole_weights,
)
from aag_hf.collators import DataCollatorForContextGeneration
from aag_hf.data.contexts import GENERATOR_PROMPT
from aag_hf.data.folds import fold_of
from aag_hf.errors import InputError
from aag_hf.evaluation.curves import plot_curves
from aag_hf.manifest import Manifest
from aag_hf.trainers import ContextGeneratorConfig, ContextGeneratorTrainer


@dataclass
class TrainGeneratorOptions(SampleOptions, AdapterOptions, ModelOptions):
    """What is trained, and on what."""

    train_file: str = field(default="", metadata={"help": "Training records with compressed_context."})
    dev_file: str | None = field(default=None, metadata={"help": "Development records with compressed_context."})
    method: Literal["lora", "full"] = field(default="lora", metadata={"help": "'lora', or 'full' for all weights."})
    prompt: str = field(default=GENERATOR_PROMPT, metadata={"help": "Prompt with {question}."})
    prompt_max_length: int = field(default=128, metadata={"help": "The most tokens of a prompt."})
    context_max_length: int = field(default=128, metadata={"help": "The most tokens of a context."})
    folds: int = field(
        default=1, metadata={"help": "For cross-fitting: the number of folds that records are split into."}
    )
    fold: int = field(default=0, metadata={"help": "With folds: the fold that this generator must not see."})
    overwrite: bool = field(default=False, metadata={"help": OVERWRITE})


def train_generator(options: TrainGeneratorOptions, arguments: ContextGeneratorConfig) -> Path:
    """Train a context generator and save it in ``arguments.output_dir``.

    Returns:
        The output folder, an adapter or a model with its tokenizer; it appears when training is complete.

    Raises:
        InputError: Options or files that cannot be used, or a folder of another run.
    """
    if not options.train_file:
        raise InputError("train_file is missing: name the training records.")
    if not 0 <= options.fold < options.folds:
        raise InputError(f"fold is {options.fold}: with folds {options.folds} expected 0 to {options.folds - 1}.")
    use_threads(options.threads)
    output_dir = real(Path(arguments.output_dir))
    made_by = manifest_of("train-generator", options, arguments)
    with training_output(output_dir, made_by, arguments, options.overwrite) as finished:
        if not finished:
            _train(options, arguments, output_dir, made_by)
    return output_dir


def _train(
    options: TrainGeneratorOptions, arguments: ContextGeneratorConfig, output_dir: Path, made_by: Manifest
) -> None:
    check_quantized(options, arguments)
    set_seed(arguments.seed)
    records, dev_records = sampled_records(options, arguments.seed)
    if options.folds > 1:
        seen = [place for place, record in enumerate(records) if fold_of(record, options.folds) != options.fold]
        records = Subset(records, seen)
    with whole_weights(arguments):
        model = load_language_model(options.model_name_or_path, **options.loading_arguments())
    tokenizer = load_tokenizer(options.model_name_or_path)
    encoder_decoder = is_encoder_decoder(model)
    if options.method == "lora":
        task_type = "SEQ_2_SEQ_LM" if encoder_decoder else "CAUSAL_LM"
        model = get_peft_model(model, LoraConfig(task_type=task_type, **options.lora_arguments()))
    trainer = ContextGeneratorTrainer(
        model=model,
        args=arguments,
        train_dataset=records,
        eval_dataset=dev_records,
        data_collator=DataCollatorForContextGeneration(
            tokenizer, encoder_decoder, options.prompt, options.prompt_max_length, options.context_max_length
        ),
    )
    figures = run(trainer, arguments, made_by)
    weights = gathered_weights(trainer)
    if trainer.is_world_process_zero():
        with new_directory(output_dir, made_by) as directory:
            settle(tokenizer, model)
            model.save_pretrained(directory, state_dict=weights)
            tokenizer.save_pretrained(directory)
            plot_curves(trainer.state.log_history, directory / CURVES)
        told = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        plain_console().print(f"{output_dir}: {told}")
    trainer.accelerator.wait_for_everyone()


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    options, arguments = parse_arguments("train-generator", (TrainGeneratorOptions, GeneratorArguments), argv)
    settle_learning_rate(arguments, options.method)
    train_generator(options, arguments)


if __name__ == "__main__":
    sys.exit(run_command("train-generator", lambda: main(sys.argv[1:])))
