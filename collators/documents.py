"""The states of documents from which the adapters of records are made."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from aag_hf.collators.kept import GIGABYTE, KeptTensors
from aag_hf.data.contexts import ContextSource, context_of
from aag_hf.errors import InputError
from aag_hf.hyperlora.document_states import DocumentStates
from aag_hf.questions import DocumentEncoder

# Documents per call of the encoder, which makes batches of them.
GROUP = 256


class RecordDocuments:
    """States of the documents of records. They are encoded on first use, and kept while there is room.

    The language model under an adapter is frozen, so the states of a document never change. They are kept in half
    precision.

    Args:
        encoder: Encodes the documents.
        context: Which text of a record is its document, as in [`~aag_hf.data.contexts.context_of`].
        passages: How many passages ``"passages"`` joins.
        room: The most bytes to keep. The states least recently used go first.

    Raises:
        InputError: `context` is ``"none"``. On a call: a record lacks that text.
    """

    def __init__(
        self,
        encoder: DocumentEncoder,
        context: ContextSource = "passages",
        passages: int = 1,
        room: int = 4 * GIGABYTE,
    ):
        if context == "none":
            raise InputError("the adapter's document is missing: choose generated, compressed or passages.")
        self.encoder = encoder
        self.context: ContextSource = context
        self.passages = passages
        self._kept = KeptTensors(self._encode, room)

    def __call__(self, records: Sequence[dict[str, Any]]) -> DocumentStates:
        """The documents of a batch, each once. `rows` says which of them each record reads."""
        texts = [self.text_of(record) for record in records]
        each = list(dict.fromkeys(texts))
        states, embeddings, mask = (pad_sequence(list(t), batch_first=True) for t in zip(*self._kept.of(each)))
        rows = torch.tensor([each.index(text) for text in texts], device=states.device)
        return DocumentStates(states.float(), embeddings, mask, rows)

    def text_of(self, record: dict[str, Any]) -> str:
        """The document of a record."""
        text = context_of(record, self.context, self.passages) or ""
        if not text.strip():
            raise InputError(f"record {record['id']}: its {self.context} text, which the adapter reads, is empty.")
        return text

    def keep(self, records: Iterable[dict[str, Any]]) -> None:
        """Encode the documents of records in advance, many at a time, while there is room."""
        texts = iter(dict.fromkeys(self.text_of(record) for record in records))
        while not self._kept.is_full and (group := list(islice(texts, GROUP))):
            self._kept.of(group)

    def _encode(self, texts: list[str]) -> list[tuple[torch.Tensor, ...]]:
        """States, embeddings and mask of each text, without padding."""
        encoded = self.encoder.encode(texts)
        assert encoded.embeddings is not None and encoded.mask is not None
        documents = []
        for states, embeddings, mask in zip(encoded.states, encoded.embeddings, encoded.mask):
            end = int(mask.nonzero().max()) + 1
            kept = (states[:end].half(), embeddings[:end].to(self.encoder.backbone.dtype), mask[:end])
            documents.append(tuple(tensor.clone() for tensor in kept))
        return documents
