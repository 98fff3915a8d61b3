"""The states of documents from which the adapters of records are made."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from aag_hf.data.contexts import ContextSource, context_of
from aag_hf.errors import InputError
from aag_hf.hyperlora.document_states import DocumentStates
from aag_hf.questions import DocumentEncoder

GIGABYTE = 2**30
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
        self.room = room
        self._kept: OrderedDict[str, tuple[torch.Tensor, ...]] = OrderedDict()
        self._bytes = 0

    def __call__(self, records: Sequence[dict[str, Any]]) -> DocumentStates:
        """The documents of a batch, each once. `rows` says which of them each record reads."""
        texts = [self.text_of(record) for record in records]
        each = list(dict.fromkeys(texts))
        found = self._states(each)
        states, embeddings, mask = (pad_sequence(tensors, batch_first=True) for tensors in zip(*found))
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
        while self._bytes < self.room and (group := list(islice(texts, GROUP))):
            self._states(group)

    def _states(self, texts: list[str]) -> list[tuple[torch.Tensor, ...]]:
        missing = [text for text in texts if text not in self._kept]
        found: dict[str, tuple[torch.Tensor, ...]] = {}
        if missing:
            encoded = self.encoder.encode(missing)
            assert encoded.embeddings is not None and encoded.mask is not None
            for text, states, embeddings, mask in zip(missing, encoded.states, encoded.embeddings, encoded.mask):
                end = int(mask.nonzero().max()) + 1
                kept = (states[:end].half(), embeddings[:end].to(self.encoder.backbone.dtype), mask[:end])
                # A view would keep the whole tensor in memory.
                found[text] = tuple(tensor.clone() for tensor in kept)
        for text in texts:
            if text in self._kept:
                self._kept.move_to_end(text)
                found[text] = self._kept[text]
            elif text in missing:
                self._kept[text] = found[text]
                self._bytes += _bytes(found[text])
        while self._bytes > self.room:
            self._bytes -= _bytes(self._kept.popitem(last=False)[1])
        return [found[text] for text in texts]


def _bytes(tensors: tuple[torch.Tensor, ...]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
