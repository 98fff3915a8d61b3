"""What a reader is given for questions: contexts, features and memories, its own or the caller's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from aag_hf.collators import DataCollatorForContextDistillation
from aag_hf.data.contexts import ContextSource, joined_passages
from aag_hf.errors import InputError
from aag_hf.hyperlora import DocumentMemory

if TYPE_CHECKING:
    from aag_hf.awakening.model import AwakeningModel


@dataclass(frozen=True)
class Given:
    """What a caller gives beside the questions, as arguments of [`AwakeningModel.generate`]."""

    contexts: Sequence[str] | None = None
    features: torch.Tensor | None = None
    passages: Sequence[list[dict[str, Any]]] | None = None
    memory: DocumentMemory | None = None
    documents: str | Sequence[str] | None = None


@dataclass
class ReaderInputs:
    """What the reader is given for each question.

    Args:
        collator: Makes its prompts.
        records: One per question.
        memory: A memory for each question, or ``None``.
        contexts: What it reads beside each question; ``None`` where it reads the question alone.
        features: ``(questions, feature_dim)``; ``None`` for a reader without a question encoder.
        seconds: Seconds that each stage took for all questions, so far: `context`, `memory`, `features`.
    """

    collator: DataCollatorForContextDistillation
    records: list[dict[str, Any]]
    memory: DocumentMemory | None
    contexts: list[str] | None
    features: torch.Tensor | None
    seconds: dict[str, float]


def reader_inputs(model: AwakeningModel, questions: Sequence[str], given: Given, batch_size: int = 32) -> ReaderInputs:
    """What the reader of `model` is given; the model makes what it needs and the caller does not give.

    Args:
        model: The composed model.
        questions: The questions.
        given: What the caller gives.
        batch_size: Questions per forward pass.

    Raises:
        InputError: As [`AwakeningModel.generate`].
    """
    if isinstance(questions, str):
        raise InputError("expected a list of questions, got one string: pass [question].")
    if model.config.fid and given.passages is None:
        raise InputError("this reader reads passages one by one: pass `passages`, the ctxs of each question.")
    contexts, features, passages, memory = given.contexts, given.features, given.passages, given.memory
    if passages is not None:
        contexts = [joined_passages(ctxs, model.config.passages) for ctxs in passages]
    seconds = {}
    start = time.perf_counter()
    if contexts is None and model.config.context != "none":
        contexts = model.write_contexts(questions, batch_size)
    seconds["context"] = time.perf_counter() - start
    start = time.perf_counter()
    if model.document_encoder is not None or memory is not None or given.documents is not None:
        memory = _memory(model, questions, given, batch_size)
        seconds["memory"] = time.perf_counter() - start
    start = time.perf_counter()
    if features is None and model.question_encoder is not None:
        features = model.encode_features(questions, contexts, batch_size)
    seconds["features"] = time.perf_counter() - start
    records = [
        {
            "id": str(i),
            "question": question,
            "generated_context": contexts[i] if contexts is not None else None,
            "ctxs": passages[i] if passages is not None else [],
            "features": features[i].tolist() if features is not None else None,
        }
        for i, question in enumerate(questions)
    ]
    source: ContextSource = "none" if contexts is None else "generated"
    collator = model.reader_collator("passages" if passages is not None else source)
    return ReaderInputs(collator, records, memory, list(contexts) if contexts else None, features, seconds)


def _memory(model: AwakeningModel, questions: Sequence[str], given: Given, batch_size: int) -> DocumentMemory:
    """A memory for each question."""
    memory, documents = given.memory, given.documents
    if model.document_encoder is None:
        raise InputError("this reader's adapter is not made from documents: it has no document encoder.")
    if memory is not None and documents is not None:
        raise InputError("memory and documents were given: pass one of them.")
    if memory is None and documents is None and model.config.adapter_context == "generated":
        documents = model.write_contexts(questions, batch_size)
    if memory is None:
        if documents is None:
            raise InputError("this reader's adapter is made from a document: pass documents, or a memory.")
        texts = [documents] if isinstance(documents, str) else list(documents)
        each = list(dict.fromkeys(texts))
        memory = model.memorize(each, batch_size=batch_size)
        memory = memory if len(texts) == 1 else memory[[each.index(text) for text in texts]]
    if len(memory) not in (1, len(questions)):
        raise InputError(
            f"there are {len(questions)} questions and {len(memory)} memories: pass one for all, or one for each."
        )
    return memory if len(memory) == len(questions) else memory[[0] * len(questions)]
