"""What the adapters of a call are made from, and whether it fits the hypernetworks and the batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from aag_hf.hyperlora.document_memory import DocumentMemory
from aag_hf.hyperlora.document_states import DocumentStates
from aag_hf.hyperlora.hypernetwork import HyperNetwork

if TYPE_CHECKING:
    from aag_hf.hyperlora.layer import HyperLoraNetworks
    from aag_hf.hyperlora.memory_network import MemoryHyperNetwork

NAMES = ("features", "memory", "documents")


@dataclass(frozen=True)
class AdapterInputs:
    """What a call was given beside the model's own inputs.

    Attributes:
        features: ``(batch, feature_dim)``, a question's features for each row.
        memory: A memory for each row.
        documents: The states of documents, of which a memory is made for each row; in training.
    """

    features: torch.Tensor | None = None
    memory: DocumentMemory | None = None
    documents: DocumentStates | None = None

    @classmethod
    def taken_from(cls, kwargs: dict[str, Any]) -> AdapterInputs | None:
        """What stands in the arguments of a call, which lose it; ``None`` if there is nothing."""
        given = {name: kwargs.pop(name, None) for name in NAMES}
        return cls(**given) if any(value is not None for value in given.values()) else None

    def for_networks(self, container: HyperLoraNetworks) -> dict[str, torch.Tensor | DocumentStates]:
        """What each active hypernetwork reads, on its device, by adapter name.

        Raises:
            ValueError: One lacks its input, or cannot read it, or nobody reads what was given.
        """
        networks = container.active_networks
        kinds = {network.reads for network in networks.values()}
        if networks and self.features is not None and "features" not in kinds:
            raise ValueError("features were given, and the active adapters read documents: pass `memory=`.")
        if networks and self.memory is not None and self.documents is not None:
            raise ValueError("memory and documents were given: pass one of them.")
        if networks and (self.memory is not None or self.documents is not None) and "documents" not in kinds:
            raise ValueError("a memory was given, and the active adapters read features: pass `features=`.")
        return {name: self.read_by(name, network) for name, network in networks.items()}

    @property
    def questions(self) -> int:
        """How many questions the adapters are for.

        Raises:
            ValueError: Features and memories of different numbers of questions.
        """
        counts = {}
        if self.features is not None:
            counts["features"] = len(self.features)
        if self.memory is not None:
            counts["memory"] = len(self.memory)
        if self.documents is not None:
            counts["documents"] = DocumentStates(**self.documents).questions
        if len(set(counts.values())) > 1:
            rows = " and ".join(f"{name} of {count} questions" for name, count in counts.items())
            raise ValueError(f"there are {rows}: pass one of each per question.")
        return next(iter(counts.values()))

    def check_rows(self, inputs: torch.Tensor | None, cu_seqlens: torch.Tensor | None = None) -> None:
        """Refuse a batch that has not one row for each question.

        Raises:
            ValueError: It has not.
        """
        if inputs is None:
            return
        rows = inputs.shape[0] if cu_seqlens is None else len(cu_seqlens) - 1
        if rows != self.questions:
            what = "features has" if self.features is not None else "memory has"
            one = "feature vector" if self.features is not None else "memory"
            raise ValueError(f"{what} {self.questions} rows, the input has {rows}: pass one {one} per question.")

    def read_by(self, name: str, network: HyperNetwork) -> torch.Tensor | DocumentStates:
        """What the hypernetwork `network` of the adapter `name` reads of this, on its device.

        Raises:
            ValueError: It is missing, or cannot be read.
        """
        device = next(network.parameters()).device
        if network.reads == "features":
            if self.features is None:
                raise ValueError(f"adapter {name!r} reads features, and none were given: pass `features=`.")
            return _checked_features(name, network, self.features).to(device)
        if self.documents is not None:
            # A Trainer hands on the plain mapping.
            return checked_states(network, DocumentStates(**self.documents)).to(device)
        if self.memory is None:
            raise ValueError(
                f"adapter {name!r} reads documents, and none were given: pass `memory=model.memorize(states)`."
            )
        return _checked_memory(name, network, self.memory).tensor.to(device)


def checked_states(network: MemoryHyperNetwork, documents: DocumentStates) -> DocumentStates:
    """`documents`, if `network` can read them.

    Raises:
        ValueError: Other shapes than it reads, or NaN.
    """
    states, embeddings, mask = documents.states, documents.embeddings, documents.mask
    expected = (network.feature_dim, network.width)
    if embeddings is None or mask is None or states.dim() != 3 or states.shape[:2] != embeddings.shape[:2]:
        raise ValueError("documents need states, embeddings and mask: encode them with a DocumentEncoder.")
    if (states.shape[-1], embeddings.shape[-1]) != expected or mask.shape != states.shape[:2]:
        raise ValueError(
            f"documents have states {tuple(states.shape)}, embeddings {tuple(embeddings.shape)} and mask "
            f"{tuple(mask.shape)}, expected widths {expected[0]} and {expected[1]}: use the document encoder this "
            "adapter was trained with."
        )
    if not (torch.compiler.is_compiling() or states.is_meta):
        for what, tensor in (("states", states), ("embeddings", embeddings)):
            if not tensor.isfinite().all():
                row = int((~tensor.isfinite()).flatten(1).any(dim=1).nonzero()[0])
                raise ValueError(f"the {what} of document {row} have NaN or infinity: encode it again.")
    return documents


def _checked_features(name: str, network: HyperNetwork, features: torch.Tensor) -> torch.Tensor:
    expected = network.feature_dim
    if features.dim() != 2 or features.shape[1] != expected:
        raise ValueError(
            f"features has shape {tuple(features.shape)}, adapter {name!r} expects (batch, {expected}): use the "
            "question encoder this adapter was trained with."
        )
    # A compiled graph would break where it depends on values, and the meta device has none.
    if not (torch.compiler.is_compiling() or features.is_meta or features.isfinite().all()):
        row = int((~features.isfinite()).any(dim=1).nonzero()[0])
        raise ValueError(f"features has NaN or infinity in row {row}: encode that question again.")
    return features


def _checked_memory(name: str, network: MemoryHyperNetwork, memory: Any) -> DocumentMemory:
    if not isinstance(memory, DocumentMemory):
        kind = "document states" if isinstance(memory, Mapping) else type(memory).__name__
        raise ValueError(f"memory is {kind}, expected a DocumentMemory: pass what `model.memorize(states)` returned.")
    expected = (network.memories, network.r, network.width)
    if tuple(memory.tensor.shape[1:]) != expected:
        raise ValueError(
            f"memory has shape {tuple(memory.tensor.shape)}, adapter {name!r} expects (batch, {expected[0]}, "
            f"{expected[1]}, {expected[2]}): memorize the documents with this model."
        )
    if not torch.compiler.is_compiling() and memory.made_by != network.fingerprint():
        raise ValueError(f"memory was made by another model than adapter {name!r}: memorize the documents with it.")
    return memory
