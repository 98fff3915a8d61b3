"""The teacher of ``aag train``: loaded beside the student, or its answers from a cache."""

import math
from collections.abc import Sequence
from typing import Any

from accelerate import PartialState
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from aag_hf.awakening import AwakeningModel
from aag_hf.awakening.loading import saved_config
from aag_hf.cli.train_options import TrainOptions
from aag_hf.cli.training import is_sharding
from aag_hf.collators import DataCollatorForContextDistillation, ReaderPrompt
from aag_hf.errors import InputError
from aag_hf.trainers import ContextDistillationConfig, TeacherCache

Records = Sequence[dict[str, Any]]


def set_up_teacher(
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
