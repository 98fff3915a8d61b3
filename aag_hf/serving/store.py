"""The documents that a server remembers."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

from aag_hf.errors import InputError
from aag_hf.hyperlora import DocumentMemory


@dataclass(frozen=True)
class StoredDocument:
    """A document that was read.

    Attributes:
        id: Follows from its text alone.
        memory: One row.
        created: Seconds since 1970.
    """

    id: str
    memory: DocumentMemory
    created: int

    @property
    def bytes(self) -> int:
        """What it takes of the store."""
        return self.memory.tensor.nbytes


def document_id(text: str) -> str:
    """The id of a text: 32 digits of its SHA-256, so that equal texts have one."""
    return sha256(text.encode("utf-8")).hexdigest()[:32]


class DocumentStore:
    """Documents by id. When there is no room for another, those asked about longest ago are forgotten.

    Not for several threads at once.

    Args:
        max_bytes: The most that the memories take together.
    """

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self._documents: OrderedDict[str, StoredDocument] = OrderedDict()

    def __iter__(self) -> Iterator[StoredDocument]:
        """The documents, the one asked about last at the end."""
        return iter(list(self._documents.values()))

    def add(self, document: StoredDocument) -> None:
        """Keep a document.

        Raises:
            InputError: It would not fit if it were alone.
        """
        if document.bytes > self.max_bytes:
            raise InputError(
                f"the document's memory takes {document.bytes:,} bytes and all documents may take {self.max_bytes:,}: "
                "start the server with a larger document_store_gb."
            )
        self._documents.pop(document.id, None)
        while sum(kept.bytes for kept in self._documents.values()) + document.bytes > self.max_bytes:
            self._documents.popitem(last=False)
        self._documents[document.id] = document

    def get(self, identifier: str) -> StoredDocument | None:
        """The document of an id, which counts as asked about now; ``None`` if it is unknown or forgotten."""
        if identifier in self._documents:
            self._documents.move_to_end(identifier)
        return self._documents.get(identifier)

    def remove(self, identifier: str) -> bool:
        """Forget a document; returns whether it was there."""
        return self._documents.pop(identifier, None) is not None
