"""Which document a question is about, if it is about any."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from aag_hf.errors import InputError
from aag_hf.hyperlora import DocumentMemory
from aag_hf.questions import DocumentEncoder

# A document of less relevance is hardly about the question.
LITTLE = 0.1


@dataclass(frozen=True)
class Fitting:
    """The memories that questions are answered from.

    Args:
        memory: One row per question, empty where no document fits.
        documents: The id of each question's document; ``None`` where none fits.
        relevance: That of each question's document, as [`DocumentEncoder.relevance`] gives it; ``None`` where it is
            unknown.
    """

    memory: DocumentMemory
    documents: list[str | None]
    relevance: list[float | None]


def fitting_memories(
    questions: Sequence[str],
    memory: DocumentMemory,
    encoder: DocumentEncoder | None,
    min_relevance: float = 0.0,
) -> Fitting:
    """The memories of questions, without those of documents that are not about their question.

    Args:
        questions: The questions.
        memory: One row per question, as from `memories_for`.
        encoder: Of the model that made the memories, which knows the common words; ``None`` if it has none.
        min_relevance: The least relevance, in [0, 1], at which a document is used. One whose text is unknown is used.

    Raises:
        InputError: `min_relevance` is out of range.

    Example:

    ```python
    chosen = memories_for(questions, memory)
    fitting = fitting_memories(questions, chosen, model.document_encoder, min_relevance=0.1)
    model.generate(questions, memory=fitting.memory)
    ```
    """
    if not 0 <= min_relevance <= 1:
        raise InputError(f"min_relevance is {min_relevance}: expected a number from 0 to 1.")
    found: list[float | None] = [None] * len(memory)
    if memory.texts is not None and encoder is not None:
        found = [encoder.relevance(question, text) for question, text in zip(questions, memory.texts)]
    is_about = memory.tensor.new_tensor([known is None or known >= min_relevance for known in found])
    kept = memory.tensor * is_about[:, None, None, None]
    is_used = kept.flatten(1).any(1).tolist()
    documents = [name if used else None for name, used in zip(memory.ids, is_used)]
    return Fitting(replace(memory, tensor=kept), documents, found)


def memories_for(questions: Sequence[str], memory: DocumentMemory) -> DocumentMemory:
    """For each question the memory of the document that BM25 ranks first, and an empty one if no word is shared.

    A sum of memories blends what its documents say. A single one does not, however many there are to choose from. Where
    there is but one document, all questions get its memory.

    Args:
        questions: The questions.
        memory: One row per document, with their texts.

    Returns:
        One row per question.

    Raises:
        InputError: The memories have no texts, or the extra ``retrieval`` is not installed.

    Example:

    ```python
    memory = model.memorize(["The capital of Nuvaria is Brel.", "The capital of Ostmark is Tund."])
    model.generate(questions, memory=memories_for(questions, memory))
    ```
    """
    if len(memory) == 1:
        return memory[[0] * len(questions)]
    if memory.texts is None:
        raise InputError(
            f"the memories of {', '.join(memory.ids[:3])} have no texts to choose by: memorize them again."
        )
    # Of the extra `retrieval`, which one document does not need.
    from aag_hf.data.retrieval import Bm25Retriever

    found = Bm25Retriever({"title": "", "text": text} for text in memory.texts).search(questions, top_k=1)
    best = [passages[0] for passages in found]
    chosen = memory[[memory.texts.index(passage["text"]) for passage in best]]
    is_about = chosen.tensor.new_tensor([passage["score"] > 0 for passage in best])
    return replace(chosen, tensor=chosen.tensor * is_about[:, None, None, None])
