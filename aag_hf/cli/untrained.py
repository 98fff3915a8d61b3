"""What ``aag train`` trains: the base model with a fresh adapter, and the encoders that the adapter reads with."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from aag_hf import HyperLoraConfig
from aag_hf.awakening import AwakeningConfig, AwakeningModel, share_weights
from aag_hf.awakening.loading import is_encoder_decoder, load_tokenizer
from aag_hf.awakening.quantization import quantization_of
from aag_hf.cli.train_options import TrainOptions
from aag_hf.cli.training import is_sharding
from aag_hf.collators import DataCollatorForContextDistillation, RecordDocuments
from aag_hf.data.contexts import context_of
from aag_hf.data.mapped import WithFeatures
from aag_hf.errors import InputError
from aag_hf.hyperlora import calibrate, memory_layers
from aag_hf.questions import DocumentEncoder, QuestionEncoder
from aag_hf.trainers import ContextDistillationConfig
from aag_hf.trainers.lower_layers import UpperLayers

Records = Sequence[dict[str, Any]]
# Training records whose documents the statistics of states are taken from, and those the scales of layers are.
STATISTICS_FROM, CALIBRATE_ON = 128, 32


def untrained_model(options: TrainOptions, base: PreTrainedModel, train_records: Records) -> AwakeningModel:
    """What `options` describe over a base model: its encoders, fitted to the training records, and a fresh adapter."""
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


def documents_of(model: AwakeningModel, records: Records) -> RecordDocuments:
    """The documents of the records, by an encoder that is fitted to them."""
    encoder, config = model.document_encoder, model.config
    assert encoder is not None
    documents = RecordDocuments(encoder, config.adapter_context, config.adapter_passages)
    first = list(islice(records, STATISTICS_FROM))
    texts = list(dict.fromkeys(map(documents.text_of, first)))
    encoder.fit_statistics(texts).fit_words([record["question"] for record in first], texts)
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
        added_documents=options.added_documents,
        **adapter,
    )


def with_features(records: Records, model: AwakeningModel) -> Records:
    """The records with the features of their questions."""
    contexts = feature_contexts(records, model.config)
    return WithFeatures(records, model.encode_features([record["question"] for record in records], contexts))


def feature_contexts(records: Records, config: AwakeningConfig) -> list[str] | None:
    """What features read beside each question."""
    if not config.features_read_context:
        return None
    return [context_of(record, config.context, config.passages) or "" for record in records]
