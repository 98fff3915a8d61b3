"""A batch's part that comes from a teacher cache, and the terms of the loss that are computed from it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from aag_hf.errors import InputError
from aag_hf.trainers.batch_rows import TEACHER
from aag_hf.trainers.context_distillation.aligned_terms import (
    ATTENTION,
    Alignment,
    Layers,
    Reading,
    Tokens,
    shared_terms,
    shared_tokens,
)
from aag_hf.trainers.context_distillation.losses import distillation_kl, topk_distillation_kl

# Where a model has states that alignment compares. A causal model has only the first.
PLACES = ("answer", "question")


@dataclass
class CachedColumns:
    """What a cache gives a batch. Rows of answer tokens have the order of the student's in `answer_logits`.

    Args:
        labels: ``(answer tokens,)``.
        logits: ``(answer tokens, vocab)``, if the cache keeps all.
        top_values, top_indices, tail_logsumexp: The record of [`~..losses.topk_record`], if it keeps some.
        temperatures: The columns of `tail_logsumexp`.
        vocabulary: The number of tokens that the teacher knows, if not all logits are there.
        layers: The layers of the states.
        states: States of [`batch_states`] by ``<place>_<term>``, their masks by ``<place>_<term>_mask``.
    """

    labels: Tensor
    logits: Tensor | None = None
    top_values: Tensor | None = None
    top_indices: Tensor | None = None
    tail_logsumexp: Tensor | None = None
    temperatures: list[float] | None = None
    vocabulary: int | None = None
    layers: Layers | None = None
    states: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, batch: dict[str, Any]) -> "CachedColumns | None":
        """Take them from the columns of a batch. ``None`` if they are a teacher's inputs."""
        given = {name.removeprefix(TEACHER): value for name, value in batch.items() if name.startswith(TEACHER)}
        if not ("logits" in given or "top_values" in given):
            return None
        known = {column.name for column in fields(cls)}
        states = {name: value for name, value in given.items() if name not in known}
        return cls(**{name: value for name, value in given.items() if name in known}, states=states)

    def to_batch(self) -> dict[str, Any]:
        """The columns of a batch, with ``teacher_`` before their names."""
        columns = {name: value for name, value in vars(self).items() if value is not None and name != "states"}
        return {f"{TEACHER}{name}": value for name, value in (columns | self.states).items()}

    def check_answers(self, labels: Tensor) -> None:
        """Refuse a batch whose answers are not those that the teacher predicted.

        Args:
            labels: The student's answer tokens, ``(answer tokens,)``.

        Raises:
            InputError: The answers differ.
        """
        if not torch.equal(labels, self.labels):
            raise InputError("the student's answers are not the cached teacher's: build the cache from these records.")

    def check_temperatures(self, temperatures: Sequence[float]) -> None:
        """Refuse a cache that does not serve all temperatures of a run.

        Raises:
            InputError: Some logits were left out, and their weight at one of the temperatures is not known.
        """
        missing = [t for t in temperatures if self.temperatures is not None and t not in self.temperatures]
        if missing:
            raise InputError(
                f"the run's temperature is {missing[0]}, the teacher cache was made for {self.temperatures}: build "
                "another cache for all that ContextDistillationConfig.temperatures gives; one with top_k=None serves "
                "any."
            )

    def distillation_kl(self, logits: Tensor, temperature: float) -> Tensor:
        """[`~..losses.distillation_kl`]; if some logits were left out, exact over {those that were kept, the rest}.

        Args:
            logits: The student's logits, ``(answer tokens, vocab)``.
            temperature: The softmax temperature.

        Raises:
            InputError: The temperature or the vocabulary is not the cache's.
        """
        if self.logits is not None:
            return distillation_kl(logits, self.logits, None, temperature)
        assert self.temperatures is not None and self.tail_logsumexp is not None
        assert self.top_values is not None and self.top_indices is not None
        self.check_temperatures([temperature])
        if self.vocabulary != logits.shape[-1]:
            raise InputError(
                f"the cached teacher's vocabulary has {self.vocabulary} tokens, the student's {logits.shape[-1]}: "
                "their distributions can only be compared over the same tokens."
            )
        tail = self.tail_logsumexp[:, self.temperatures.index(temperature)]
        return topk_distillation_kl(logits, self.top_values, self.top_indices, tail, None, temperature)

    def aligned_terms(
        self, student: Reading, names: Collection[str], alignment: Alignment, layers: Layers
    ) -> dict[str, Tensor]:
        """[`~..aligned_terms.aligned_terms`] with the teacher's states.

        Args:
            student: The student's reading.
            names: The alignment terms.
            alignment: ``"question"``.
            layers: The layers that the cache was built for.

        Raises:
            InputError: The cache does not hold these states.
        """
        if alignment == "position":
            raise InputError(
                "alignment 'position' reads every token of the teacher's, which a cache does not keep: choose "
                "'question', or give the trainer the teacher_model and the collator no cache."
            )
        missing = [name for name in names if f"{PLACES[0]}_{name}" not in self.states]
        if missing or self.layers != layers:
            kept = f"those of layers {self.layers!r}" if not missing else f"none for {missing[0]}"
            raise InputError(
                f"the run aligns states of layers {layers!r}, of which the teacher cache holds {kept}: build another "
                "cache with aligned and layers as in the run, or set hidden_weight and attention_weight to 0."
            )
        return shared_terms(student, {name: self._tokens(name) for name in names}, layers)

    def _tokens(self, name: str) -> dict[str, Tokens]:
        """The tokens that a term compares, by place."""
        kinds = {place: f"{place}_{name}" for place in PLACES}
        return {
            place: Tokens(list(self.states[kind].unbind(1)), self.states[f"{kind}_mask"])
            for place, kind in kinds.items()
            if kind in self.states
        }


def state_rows(reading: Reading, names: Collection[str], layers: Layers) -> dict[str, list[Tensor]]:
    """The states of a batch that the terms `names` compare, one tensor per record.

    Args:
        reading: The teacher's reading.
        names: The alignment terms.
        layers: Which layers.

    Returns:
        By ``<place>_<term>``, each record's hidden states ``(tokens, layers, dim)``, or attentions
        ``(tokens · tokens, layers, heads)``.
    """
    rows = {}
    for name in names:
        for place, tokens in shared_tokens(reading, name, layers).items():
            counts = tokens.mask.sum(-1).tolist()
            states = torch.stack(tokens.layers, dim=1)
            rows[f"{place}_{name}"] = [_as_rows(states[i], count, name) for i, count in enumerate(counts)]
    return rows


def batch_states(rows: Sequence[Tensor], name: str) -> tuple[Tensor, Tensor]:
    """Rows of [`state_rows`] as a padded batch.

    Args:
        rows: One tensor per record.
        name: The alignment term.

    Returns:
        ``(batch, layers, tokens, dim)`` or ``(batch, layers, heads, tokens, tokens)``, and a mask ``(batch, tokens)``.
    """
    states = [_from_rows(record, name) for record in rows]
    counts = [record.shape[-2] for record in states]
    shape = list(states[0].shape)
    for axis in (-1, -2) if name == ATTENTION else (-2,):
        shape[axis] = max(counts)
    padded = states[0].new_zeros(len(states), *shape)
    for target, record in zip(padded, states):
        target[tuple(slice(length) for length in record.shape)] = record
    return padded, torch.arange(max(counts)) < torch.tensor(counts).unsqueeze(1)


def _as_rows(states: Tensor, count: int, name: str) -> Tensor:
    if name == ATTENTION:
        return states[..., :count, :count].permute(2, 3, 0, 1).flatten(0, 1)
    return states[:, :count].transpose(0, 1)


def _from_rows(rows: Tensor, name: str) -> Tensor:
    if name == ATTENTION:
        return rows.unflatten(0, (isqrt(len(rows)), -1)).permute(2, 3, 0, 1)
    return rows.transpose(0, 1)
