"""Many documents, one question: the memory of the document that the question is about."""

from collections.abc import Sequence
from dataclasses import replace

from aag_hf.errors import InputError
from aag_hf.hyperlora import DocumentMemory
from aag_hf.questions import DocumentEncoder


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


def relevance_of(encoder: DocumentEncoder, questions: Sequence[str], memory: DocumentMemory) -> list[float | None]:
    """How much of each question's words its document holds ([`~aag_hf.questions.relevance.relevance`]).

    Args:
        encoder: The document encoder, which knows the common words.
        questions: The questions.
        memory: One row per question, as `memories_for` gives them.

    Returns:
        One number in [0, 1] per question; ``None`` where the memories have no texts, as differences have none. Of a
        sum, the texts of all that was added count.
    """
    if memory.texts is None:
        return [None] * len(questions)
    return [encoder.relevance(question, text) for question, text in zip(questions, memory.texts, strict=True)]
