"""The documents that a visitor has the model remember. Each visitor has a tuple of their own; nothing is kept here."""

from __future__ import annotations

from dataclasses import dataclass

from aag_hf.awakening import AwakeningModel, memories_for
from aag_hf.awakening.documents import named_passages
from aag_hf.demo.readers import Reading, checked_question, read_from
from aag_hf.errors import InputError
from aag_hf.hyperlora import DocumentMemory

# Of a name that is the beginning of a text.
_LONGEST_NAME = 40


@dataclass(frozen=True)
class Document:
    """A text that was read.

    Attributes:
        name: What the page calls it.
        text: The text.
        tokens: How many tokens it has, which no prompt holds.
        memory: One row per passage.
    """

    name: str
    text: str
    tokens: int
    memory: DocumentMemory


Documents = tuple[Document, ...]


def remember(model: AwakeningModel, documents: Documents, text: str, name: str = "") -> Documents:
    """The documents and one more, which the model reads once.

    Args:
        model: A model whose adapter is made from documents.
        documents: Those before it.
        text: The text.
        name: Its name, by default its first words.

    Raises:
        InputError: The text is empty, too long or there already, or the model reads no documents.
    """
    if not text.strip():
        raise InputError("there is no text: paste one, or upload a file.")
    if model.document_encoder is None:
        raise InputError("this model's adapter is not made from documents: it cannot remember a text.")
    if any(document.text == text for document in documents):
        raise InputError("this text is remembered already: remove it, or read another one.")
    name = _unused(" ".join((name or text).split())[:_LONGEST_NAME], {document.name for document in documents})
    model.document_encoder.check([text], [name])
    names, passages = zip(*named_passages(name, text))
    memory = model.memorize(passages, names)
    tokens = len(model.document_encoder.tokenizer(text, verbose=False)["input_ids"])
    return (*documents, Document(name, text, tokens, memory))


def forget(documents: Documents, name: str | None) -> Documents:
    """The documents without the one of this name.

    Raises:
        InputError: There is none.
    """
    left = tuple(document for document in documents if document.name != name)
    if len(left) == len(documents):
        raise InputError("no document is chosen: choose the one to remove.")
    return left


def memory_of(documents: Documents) -> DocumentMemory:
    """The memories of all documents, one row per passage.

    Raises:
        InputError: There is no document.
    """
    if not documents:
        raise InputError("no document is remembered: read one first.")
    return DocumentMemory.cat([document.memory for document in documents])


def recall(model: AwakeningModel, documents: Documents, question: str) -> Reading:
    """Answer a question from the passage that its words fit best. No text is in the prompt.

    Raises:
        InputError: There is no question or no document.
    """
    question = checked_question(question)
    return read_from(model, question, memories_for([question], memory_of(documents)))


def _unused(name: str, used: set[str]) -> str:
    number, candidate = 2, name
    while candidate in used:
        number, candidate = number + 1, f"{name} ({number})"
    return candidate
