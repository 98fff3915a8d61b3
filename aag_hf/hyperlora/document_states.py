"""What a hypernetwork reads of documents."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers.utils import ModelOutput


@dataclass
class DocumentStates(ModelOutput):
    """Documents as a memory hypernetwork reads them, made by a [`DocumentEncoder`].

    Args:
        states (`torch.Tensor`): ``(documents, tokens, d)``, standardised states of one layer; zeros where `mask` is
            false.
        embeddings (`torch.Tensor`): ``(documents, tokens, d)``, the tokens' embeddings.
        mask (`torch.Tensor`): bool ``(documents, tokens)``, the tokens that are written into a memory.
        rows (`torch.Tensor`): int64 ``(questions,)``, which document each question of a batch reads; ``None`` where
            question i reads document i.
        weights (`torch.Tensor`): ``(questions, documents)``, the weight of each document's memory in the sum that a
            question reads, instead of one document; ``None`` outside of training.
    """

    states: torch.Tensor
    embeddings: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    rows: torch.Tensor | None = None
    weights: torch.Tensor | None = None

    def to(self, *args: Any, **kwargs: Any) -> "DocumentStates":
        """The same on another device."""
        return DocumentStates(**{name: tensor.to(*args, **kwargs) for name, tensor in self.items()})

    @property
    def questions(self) -> int:
        """How many questions read these documents."""
        return len(self.states if self.rows is None else self.rows)

    @property
    def rows_of_questions(self) -> torch.Tensor:
        """Which document each question reads, ``(questions,)``."""
        return torch.arange(len(self.states), device=self.states.device) if self.rows is None else self.rows
