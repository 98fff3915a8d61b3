"""``aag train``: stage 2. Trains a reader, whatever its adapter, context and teacher."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from accelerate import PartialState
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from torch.utils.data import ConcatDataset
from transformers import PreTrainedModel, set_seed

from aag_hf import HyperLoraConfig
from aag_hf.awakening import AwakeningConfig, AwakeningModel, share_weights
from aag_hf.awakening.model import is_encoder_decoder, load_language_model, load_tokenizer, saved_config
from aag_hf.awakening.quantization import quantization_of
from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.boundary import run_command
from aag_hf.cli.options import OVERWRITE, AdapterOptions, ModelOptions, PromptOptions, SampleOptions, use_threads
from aag_hf.cli.output import plain_console
from aag_hf.cli.stage import new_directory
from aag_hf.cli.training import (
    check_quantized,
    environment,
    gathered_weights,
    is_sharding,
    manifest_of,
    recipe_of,
    run,
    sampled_records,
    trained_parts,
    training_output,
    whole_weights,
)
from aag_hf.collators import DataCollatorForContextDistillation, ReaderPrompt, RecordDocuments
from aag_hf.data.contexts import ContextSource, context_of
from aag_hf.data.mapped import WithFeatures
from aag_hf.errors import InputError
from aag_hf.evaluation import ReaderMetrics
from aag_hf.hyperlora import calibrate, memory_layers
from aag_hf.manifest import Manifest
from aag_hf.questions import DocumentEncoder, QuestionEncoder
from aag_hf.trainers import ContextDistillationConfig, ContextDistillationTrainer, TeacherCache
from aag_hf.trainers.lower_layers import UpperLayers, WithLowerStates

Records = Sequence[dict[str, Any]]
# Training records whose documents the statistics of states are taken from, and those the scales of layers are.
STATISTICS_FROM, CALIBRATE_ON = 512, 32


@dataclass
class TrainOptions(PromptOptions, SampleOptions, AdapterOptions, ModelOptions):
    """What is trained, on what, and what it reads; the Trainer's own options stand beside these."""

    train_file: str = field(default="", metadata={"help": "Training records."})
    dev_file: str | None = field(default=None, metadata={"help": "Development records, for the loss after training."})
    answer_dev_file: bool = field(
        default=False,
        metadata={"help": "Also answer their questions at each evaluation: metrics exact_match, f1, best_subspan_em."},
    )
    method: Literal["aag", "lora", "full"] = field(
        default="aag", metadata={"help": "'aag' (HyperLoRA), 'lora' (static LoRA) or 'full' (all weights)."}
    )
    context: ContextSource = field(
        default="none", metadata={"help": "What the reader reads: none, generated, compressed or passages."}
    )
    passages: int = field(default=1, metadata={"help": "How many passages 'passages' reads."})
    fid: bool = field(
        default=False, metadata={"help": "Read them the Fusion-in-Decoder way, each on its own; for T5 models."}
    )
    teacher: str | None = field(default=None, metadata={"help": "A reader trained before, to distil from."})
    teacher_cache_dir: str | None = field(
        default=None, metadata={"help": "Compute the teacher's answers once and keep them here, for other runs too."}
    )
    teacher_top_k: int | None = field(
        default=64, metadata={"help": "Logits of each answer token that the cache keeps; null keeps all."}
    )
    prompt_max_length: int = field(default=256, metadata={"help": "Most tokens of a prompt."})
    answer_max_length: int = field(default=16, metadata={"help": "Most tokens of an answer."})
    padding_free: bool = field(
        default=False, metadata={"help": "Train on rows laid one after another, without padding; for causal models."}
    )
    adapter_from: Literal["question", "document", "both"] = field(
        default="question", metadata={"help": "What method 'aag' makes adapters from; of 'both' the two add up."}
    )
    adapter_context: ContextSource = field(
        default="passages", metadata={"help": "The adapter's document: generated, compressed or passages."}
    )
    adapter_passages: int = field(default=1, metadata={"help": "How many passages its 'passages' joins."})
    keep_lower_states: bool = field(
        default=False,
        metadata={"help": "Compute what enters the lowest adapted layer once per row, and train the layers above it."},
    )
    hypernetwork: Literal["embedding", "mlp"] = field(
        default="embedding", metadata={"help": "As in HyperLoraConfig, with adapter_from 'question'."}
    )
    hidden_dim: int | None = field(
        default=None, metadata={"help": "Width of the hypernetwork; by default 64, of one that reads documents 128."}
    )
    layer_index_scale: float | None = field(default=None, metadata={"help": "As in HyperLoraConfig, with 'mlp'."})
    static: bool = field(default=True, metadata={"help": "Also learn an A and a B that all questions share."})
    static_r: int | None = field(
        default=None, metadata={"help": "Rank of that part; by default r, with adapter_from 'document' 8."}
    )
    feature_dim: int = field(default=64, metadata={"help": "Size of a question's features."})
    feature_layer: float = field(default=2 / 3, metadata={"help": "Whose output is pooled, as a share of the depth."})
    features_read_context: bool = field(
        default=False, metadata={"help": "Make features from question and context, as in the paper."}
    )
    feature_statistics: Literal["token", "pooled"] = field(
        default="token", metadata={"help": "Whitening over tokens, or over pooled questions as in the paper."}
    )
    overwrite: bool = field(default=False, metadata={"help": OVERWRITE})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher_top_k is not None and self.teacher_top_k < 1:
            raise InputError(f"teacher_top_k must be positive, or null for all logits, got {self.teacher_top_k}.")
        if self.reads_documents and self.adapter_context == "none":
            raise InputError("adapter_context is 'none': name the text that adapters are made from.")

    @property
    def reads_documents(self) -> bool:
        """Whether adapters are made from documents."""
        return self.method == "aag" and self.adapter_from in ("document", "both")

    @property
    def reads_questions(self) -> bool:
        """Whether adapters are made from questions."""
        return self.method == "aag" and self.adapter_from in ("question", "both")


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
    output_dir = Path(arguments.output_dir)
    made_by = manifest_of("train", options, arguments)
    with training_output(output_dir, made_by, arguments, options.overwrite) as finished:
        if not finished:
            _train(options, arguments, output_dir, made_by)
    return output_dir


def _train(options: TrainOptions, arguments: ContextDistillationConfig, output_dir: Path, made_by: Manifest) -> None:
    check_quantized(options, arguments)
    set_seed(arguments.seed)
    train_records, dev_records = sampled_records(options, arguments.seed)
    records = ConcatDataset([train_records, dev_records]) if dev_records else train_records
    with whole_weights(arguments):
        base = load_language_model(options.model_name_or_path, options.fid, **options.loading_arguments())
        base.to(arguments.device)
        model = _untrained_model(options, base, train_records)
        collator = replace(model.reader_collator(), padding_free=options.padding_free)
        if model.document_encoder is not None:
            collator.documents = _documents_of(model, train_records)
            calibrate_on(model.reader, collator, train_records)
        teacher = None if options.teacher is None else _set_up_teacher(options, arguments, base, collator, records)
    if model.question_encoder is not None:
        train_records = with_features(train_records, model)
        dev_records = with_features(dev_records, model) if dev_records else None
    trained: nn.Module = model.reader
    reading: Any = collator
    if options.keep_lower_states:
        upper = upper_layers(options, arguments, model)
        trained, reading = upper.model, WithLowerStates(collator, upper)
    trainer = ContextDistillationTrainer(
        model=trained,
        teacher_model=None if teacher is None else teacher.reader,
        args=arguments,
        train_dataset=train_records,
        eval_dataset=dev_records,
        data_collator=reading,
        answer_metrics=ReaderMetrics(model, arguments.per_device_eval_batch_size) if options.answer_dev_file else None,
    )
    parts = trained_parts(model.reader)
    if trainer.is_world_process_zero():
        if model.config.chat:
            plain_console().print("Asked in turns of a chat, by the tokenizer's template.")
        plain_console().print("Trained: " + ", ".join(f"{name} {count:,}" for name, count in parts.items()))
    figures = run(trainer, arguments, made_by)
    weights = gathered_weights(trainer)
    if trainer.is_world_process_zero():
        with new_directory(output_dir, made_by) as directory:
            model.config.trained_parameters = sum(parts.values())
            model.config.training_figures = figures
            model.config.training_recipe = recipe_of(options, arguments)
            model.config.training_environment = environment(arguments)
            model.save_pretrained(directory, reader_weights=weights)
            if teacher is not None and arguments.train_teacher:
                teacher.save_pretrained(directory / "teacher")
    trainer.accelerator.wait_for_everyone()


def _set_up_teacher(
    options: TrainOptions,
    arguments: ContextDistillationConfig,
    base: PreTrainedModel,
    collator: DataCollatorForContextDistillation,
    records: Records,
) -> AwakeningModel | None:
    """The teacher, or ``None`` where the collator has its cached answers; `collator` learns what the teacher reads."""
    if arguments.train_teacher and options.teacher_cache_dir is not None:
        raise InputError("teacher_cache_dir keeps a frozen teacher's answers: leave it or train_teacher out.")
    # An engine that shards the student takes its base weights apart, which a teacher over the same could not read.
    teacher = load_teacher(options, None if is_sharding(arguments) and options.teacher_cache_dir is None else base)
    if arguments.train_teacher and isinstance(teacher.reader, PeftModel):
        raise InputError(f"{options.teacher}: is an adapter: train_teacher trains a teacher whole, of method 'full'.")
    if teacher.config.chat != collator.student.chat:
        asked = "turns of a chat" if teacher.config.chat else "plain text"
        raise InputError(f"{options.teacher}: was trained on {asked}: pass --chat {str(teacher.config.chat).lower()}.")
    # Its answers are the student's, of the student's length: both predict the same tokens.
    collator.teacher = ReaderPrompt.of(teacher.config)
    aligned_by_question = bool(arguments.alignment_weights) and arguments.alignment == "question"
    collator.question_mask = aligned_by_question and collator.is_encoder_decoder
    if options.teacher_cache_dir is None:
        return teacher
    collator.teacher_cache = cache_teacher(teacher.reader, collator, records, options, arguments)
    return None


def load_teacher(options: TrainOptions, base: PreTrainedModel | None) -> AwakeningModel:
    """The teacher of `options`, over the student's base weights, if given, where it was trained on the same base.

    Raises:
        InputError: The teacher's own adapter is made from questions or documents.
    """
    path = options.teacher
    assert path is not None
    config = saved_config(path)
    shares_base = base is not None and (config.base_model_name_or_path, config.fid) == (
        options.model_name_or_path,
        options.fid,
    )
    loading = options.loading_arguments()
    teacher = AwakeningModel.from_pretrained(path, base_model=base if shares_base else None, **loading)
    if teacher.question_encoder is not None or teacher.document_encoder is not None:
        made_from = "documents" if teacher.question_encoder is None else "features"
        raise InputError(f"{path}: takes {made_from} itself: a teacher must be a plain, static LoRA or full reader.")
    return teacher


def cache_teacher(
    teacher: nn.Module,
    collator: DataCollatorForContextDistillation,
    records: Records,
    options: TrainOptions,
    arguments: ContextDistillationConfig,
) -> TeacherCache:
    """What the teacher says about `records`, from ``options.teacher_cache_dir``.

    All processes together compute what is missing.

    Raises:
        InputError: The folder belongs to another teacher, prompt or temperature.
    """
    assert options.teacher is not None and options.teacher_cache_dir is not None
    return TeacherCache.build(
        teacher.to(arguments.device),
        collator,
        records,
        options.teacher_cache_dir,
        key={"teacher": options.teacher},
        top_k=options.teacher_top_k,
        temperature=arguments.temperatures(_most_steps(arguments, len(records))),
        aligned=arguments.alignment_weights,
        layers=arguments.layers,
        batch_size=arguments.per_device_eval_batch_size,
        processes=PartialState(),
    )


def _most_steps(arguments: ContextDistillationConfig, records: int) -> int:
    if arguments.max_steps > 0:
        return arguments.max_steps
    return math.ceil(arguments.num_train_epochs * records / arguments.per_device_train_batch_size)


def with_features(records: Records, model: AwakeningModel) -> Records:
    """The records with the features of their questions."""
    contexts = feature_contexts(records, model.config)
    return WithFeatures(records, model.encode_features([record["question"] for record in records], contexts))


def feature_contexts(records: Records, config: AwakeningConfig) -> list[str] | None:
    """What features read beside each question."""
    if not config.features_read_context:
        return None
    return [context_of(record, config.context, config.passages) or "" for record in records]


def _untrained_model(options: TrainOptions, base: PreTrainedModel, train_records: Records) -> AwakeningModel:
    tokenizer = load_tokenizer(options.model_name_or_path)
    chat = bool(options.chat) if options.fid else options.is_chat(tokenizer, options.model_name_or_path)
    config = AwakeningConfig(
        base_model_name_or_path=options.model_name_or_path,
        context=options.context,
        passages=options.passages,
        fid=options.fid,
        features_read_context=options.features_read_context,
        adapter_context=options.adapter_context if options.reads_documents else "none",
        adapter_passages=options.adapter_passages,
        **options.prompts(tokenizer, chat),
        prompt_max_length=options.prompt_max_length,
        answer_max_length=options.answer_max_length,
        quantization=quantization_of(base),
    )
    encoder = document_encoder = None
    if options.reads_documents:
        document_encoder = DocumentEncoder.from_backbone(base, tokenizer, layer=float(options.feature_layer))
        document_encoder.config.backbone_name_or_path = options.model_name_or_path
    if options.reads_questions:
        encoder = QuestionEncoder.from_backbone(
            base,
            tokenizer,
            feature_dim=options.feature_dim,
            layer=float(options.feature_layer),
            statistics=options.feature_statistics,
        ).fit_whitening([record["question"] for record in train_records], feature_contexts(train_records, config))
        encoder.config.backbone_name_or_path = options.model_name_or_path
    return AwakeningModel(
        config, _untrained_reader(options, base), tokenizer, encoder, document_encoder=document_encoder
    )


def upper_layers(options: TrainOptions, arguments: ContextDistillationConfig, model: AwakeningModel) -> UpperLayers:
    """The layers that are trained, where the states below them are kept.

    Raises:
        InputError: Something else needs the layers below.
    """
    wrong = {
        "padding_free": options.padding_free,
        "ZeRO or FSDP": is_sharding(arguments),
        "alignment with the teacher": bool(arguments.alignment_weights),
        "method full": options.method == "full",
    }
    for name, is_on in wrong.items():
        if is_on:
            raise InputError(f"keep_lower_states does not go with {name}: leave one of them out.")
    return UpperLayers(model.reader)


def _documents_of(model: AwakeningModel, records: Records) -> RecordDocuments:
    """The documents of the records, by an encoder that is fitted to them."""
    encoder, config = model.document_encoder, model.config
    assert encoder is not None
    documents = RecordDocuments(encoder, config.adapter_context, config.adapter_passages)
    encoder.fit_statistics(list(dict.fromkeys(map(documents.text_of, islice(records, STATISTICS_FROM)))))
    documents.keep(records)
    return documents


def calibrate_on(reader: nn.Module, collator: DataCollatorForContextDistillation, records: Records) -> None:
    """Measure the scales of a memory adapter on some of the training records."""
    inputs = replace(collator, documents=None, needs_features=False, padding_free=False)(
        list(islice(records, CALIBRATE_ON))
    )
    device = next(reader.parameters()).device
    calibrate(reader, **{name: tensor.to(device) for name, tensor in inputs.items()})


def _untrained_reader(options: TrainOptions, base: PreTrainedModel) -> nn.Module:
    if options.method == "full":
        return base
    task_type = "SEQ_2_SEQ_LM" if is_encoder_decoder(base) else "CAUSAL_LM"
    adapter = options.lora_arguments()
    if options.method == "lora":
        return get_peft_model(share_weights(base), LoraConfig(task_type=task_type, **adapter))
    if options.reads_documents:
        model = get_peft_model(share_weights(base), _memory_config(options, base, task_type))
        if options.reads_questions:
            # By a name of its own, and active beside the memory.
            model.add_adapter("question", _question_config(options, task_type))
            model.base_model.set_adapter(["default", "question"])
        return model
    return get_peft_model(share_weights(base), _question_config(options, task_type))


def _question_config(options: TrainOptions, task_type: str) -> HyperLoraConfig:
    return HyperLoraConfig(
        task_type=task_type,
        feature_dim=options.feature_dim,
        hidden_dim=options.hidden_dim or 64,
        hypernetwork=options.hypernetwork,
        layer_index_scale=options.layer_index_scale,
        static=options.static,
        static_r=options.static_r,
        **options.lora_arguments(),
    )


def _memory_config(options: TrainOptions, base: PreTrainedModel, task_type: str) -> HyperLoraConfig:
    adapter = options.lora_arguments() | {"r": options.r or 64}
    if options.reads_questions or options.target_modules == ["all-linear"]:
        adapter["target_modules"] = memory_layers(base)
    return HyperLoraConfig(
        task_type=task_type,
        feature_dim=base.config.get_text_config().hidden_size,
        hidden_dim=options.hidden_dim or 128,
        hypernetwork="memory",
        static=options.static,
        static_r=options.static_r or 8,
        **adapter,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    options, arguments = parse_arguments("train", (TrainOptions, ContextDistillationConfig), argv)
    output_dir = train(options, arguments)
    if not PartialState().is_main_process:
        return
    config = saved_config(output_dir)
    figures = ", ".join(f"{name} {value:.4g}" for name, value in config.training_figures.items())
    plain_console().print(f"{output_dir}: {config.trained_parameters:,} trained parameters; {figures}")


if __name__ == "__main__":
    sys.exit(run_command("train", lambda: main(sys.argv[1:])))
