"""Uses each public name as a script does; `make lint` checks its types strictly against the installed package."""

from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from aag_hf import (
    AwakeningConfig,
    AwakeningModel,
    AwakeningPipeline,
    DocumentEncoder,
    DocumentEncoderConfig,
    DocumentMemory,
    FiDT5Config,
    FiDT5ForConditionalGeneration,
    HyperLoraConfig,
    HyperLoraModel,
    QuestionEncoder,
    QuestionEncoderConfig,
    hyperlora_features,
    to_lora,
)


def adapted(base: PreTrainedModel) -> nn.Module:
    config: HyperLoraConfig = HyperLoraConfig(task_type="CAUSAL_LM", feature_dim=16, target_modules="all-linear", r=4)
    model: nn.Module = HyperLoraModel(base, config, "default")
    return model


def features_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: list[str]) -> torch.Tensor:
    encoder = QuestionEncoder.from_backbone(model, tokenizer, feature_dim=16).fit_whitening(questions)
    config: QuestionEncoderConfig = encoder.config
    assert config.feature_dim == 16
    features: torch.Tensor = encoder.encode(questions)
    return features


def plain_lora(model: nn.Module, features: torch.Tensor) -> dict[str, torch.Tensor]:
    with hyperlora_features(model, features):
        model(torch.ones(1, 1, dtype=torch.long))
    _, weights = to_lora(model, features[:1])
    tensors: dict[str, torch.Tensor] = weights
    return tensors


def memory_of(model: PreTrainedModel, texts: list[str], reader: HyperLoraModel) -> DocumentMemory:
    encoder = DocumentEncoder.from_backbone(model).fit_statistics(texts).fit_words(["Who?"], texts)
    relevance: float = encoder.relevance("Who?", texts[0])
    assert relevance <= 1
    config: DocumentEncoderConfig = encoder.config
    assert config.window > config.overlap
    memory: DocumentMemory = reader.memorize(encoder.encode(texts), ids=texts)
    both: DocumentMemory = memory[0] + 0.5 * memory[1] - memory[[0]]
    both.save_pretrained(Path("memory.safetensors"))
    return DocumentMemory.cat([both, DocumentMemory.from_pretrained("memory.safetensors")]).sum(weights=[1.0, 0.5])


def asked(folder: str, texts: list[str]) -> list[str]:
    model = AwakeningModel.from_pretrained(folder)
    config: AwakeningConfig = model.config
    answers: list[str] = model.generate(["Who?"], documents=texts, batch_size=config.answer_max_length).answers
    ask = AwakeningPipeline(model)
    ask.read(*texts)
    ask("Who?", min_score=-1.0, min_relevance=0.1)
    model.save_pretrained(folder)
    return answers


def fusion_in_decoder(ids: torch.Tensor) -> torch.Tensor:
    model = FiDT5ForConditionalGeneration(FiDT5Config())
    logits: torch.Tensor = model(input_ids=ids, labels=ids[:, 0]).logits
    return logits
