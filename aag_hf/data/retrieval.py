"""BM25 over a pool of passages, in memory or in a folder."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aag_hf.data.answers import Match, has_answer
from aag_hf.data.pool import Passage, read_pool
from aag_hf.data.words import words
from aag_hf.errors import InputError
from aag_hf.extras import optional

with optional():
    from tantivy import DocAddress, Document, Index, Occur, Order, Query, Schema, SchemaBuilder

__all__ = ["Bm25Retriever", "PassageIndex", "read_pool", "recall_at"]

# Bytes of postings collected before a write.
_HEAP = 64 * 2**20
# How many digits of a score are the same however the index is divided.
_DIGITS = 3


class PassageIndex:
    """Finds passages by the words they share with a question.

    Title and text are both searched. Results depend only on the passages and their order.

    Args:
        index: An index of tantivy, with the fields that `build` writes.

    Example:

    ```python
    index = PassageIndex.build(iter_pool(["psgs_w100.tsv.gz"]), Path("index"))
    index = PassageIndex.open(Path("index"))
    (ctxs,) = index.search(["What is the capital of Fiji?"], top_k=20)
    ```
    """

    def __init__(self, index: Index):
        self._index = index
        index.reload()
        self._searcher = index.searcher()

    def __len__(self) -> int:
        return self._searcher.num_docs

    @classmethod
    def build(cls, passages: Iterable[Passage], directory: Path) -> "PassageIndex":
        """Index passages. Each is taken after the one before is indexed.

        Args:
            passages: ``{title, text}``.
            directory: An empty folder for the index.

        Raises:
            InputError: There are no passages.
        """
        return cls(_written(passages, directory))

    @classmethod
    def open(cls, directory: Path) -> "PassageIndex":
        """Open an index that `build` wrote. It stays on disk.

        Raises:
            InputError: It is damaged, or not an index.
        """
        if not (directory / "meta.json").is_file():
            raise InputError(f"{directory}: holds no index: make one with `aag index`.")
        with _damage_named(f"{directory}: "):
            return cls(Index(_schema(), str(directory), reuse=True))

    def search(
        self,
        questions: Sequence[str],
        top_k: int,
        answers: Sequence[Sequence[str] | None] | None = None,
        match: Match = "words",
    ) -> list[list[Passage]]:
        """The best passages of each question, best first, as ``{title, text, score}``.

        If scores are equal, the pool's order decides: passages that share no word with the question have score 0, and
        are the first of the pool. So each question has equally many.

        Args:
            questions: What to search for.
            top_k: Passages per question, or fewer if the pool has fewer.
            answers: The acceptable answers of each question, if it has any. Each passage found is marked with
                `has_answer`. The ranking does not see them.
            match: How answers are looked for, as in [`~aag_hf.data.answers.has_answer`].

        Raises:
            InputError: `top_k` is below one, `answers` has another length than `questions`, or the index is damaged.
        """
        if top_k < 1:
            raise InputError(f"top_k is {top_k}: ask for at least one passage.")
        if answers is not None and len(answers) != len(questions):
            raise InputError(f"answers has {len(answers)} entries, questions has {len(questions)}: pass one for each.")
        with _damage_named(""):
            found = [self._search(question, top_k) for question in questions]
        for ctxs, accepted in zip(found, answers or []):
            for passage in ctxs:
                if accepted:
                    passage["has_answer"] = has_answer(passage["text"], accepted, match)
        return found

    def _search(self, question: str, top_k: int) -> list[Passage]:
        query = _query(self._index.schema, question)
        limit = top_k + 10
        while True:
            hits = self._searcher.search(query, limit, count=False).hits
            # Take all that equal the last one, since the division of the index decides which of them come.
            if len(hits) < limit or round(hits[-1][0], _DIGITS) < round(hits[top_k - 1][0], _DIGITS):
                break
            limit *= 2
        numbers = self._searcher.fast_field_values("number", [address for _, address in hits])
        ranked = sorted((-round(score, _DIGITS), n, address) for (score, address), n in zip(hits, numbers))
        best = [(address, -score) for score, _, address in ranked[:top_k]]
        if len(best) < top_k:
            best += self._first_without({number for _, number, _ in ranked}, top_k - len(best))
        return [{**json.loads(self._searcher.doc(address)["passage"][0]), "score": score} for address, score in best]

    def _first_without(self, taken: set[Any], count: int) -> list[tuple[DocAddress, float]]:
        """The first passages of the pool whose numbers are not taken, with score 0."""
        everything = Query.all_query()
        limit = count + len(taken)
        first = self._searcher.search(everything, limit, count=False, order_by_field="number", order=Order.Asc).hits
        return [(address, 0.0) for number, address in first if number not in taken][:count]


@contextmanager
def _damage_named(where: str) -> Iterator[None]:
    """Say that the index is damaged, whatever the library makes of it."""
    try:
        yield
    except BaseException as error:
        # A panic of the library's Rust code is no ordinary exception in Python.
        if not isinstance(error, (ValueError, KeyError)) and type(error).__module__ != "pyo3_runtime":
            raise
        told = " ".join(str(error).split())
        raise InputError(f"{where}not a whole index ({told}): make it again with `aag index`.") from None


class Bm25Retriever(PassageIndex):
    """The same over a pool that fits in memory.

    Args:
        passages: ``{title, text}``.

    Raises:
        InputError: There are no passages.

    Example:

    ```python
    (ctxs,) = Bm25Retriever(read_pool(["passages.jsonl"])).search(["What is the capital of Fiji?"], top_k=5)
    ```
    """

    def __init__(self, passages: Iterable[Passage]):
        super().__init__(_written(passages))


def recall_at(records: Iterable[dict[str, Any]], depths: Sequence[int]) -> dict[int, float]:
    """Per depth k, the share of records with an answer in their first k passages, among those that have answers.

    It is empty if no record has answers.
    """
    hits = dict.fromkeys(depths, 0)
    count = 0
    for record in records:
        if record.get("answers"):
            count += 1
            for k in depths:
                hits[k] += any(passage.get("has_answer") for passage in record["ctxs"][:k])
    return {k: hit / count for k, hit in hits.items()} if count else {}


def _written(passages: Iterable[Passage], directory: Path | None = None) -> Index:
    index = Index(_schema(), None if directory is None else str(directory))
    # One thread writes, since several would lose the order of passages.
    writer = index.writer(heap_size=_HEAP, num_threads=1)
    number = -1
    for number, passage in enumerate(passages):
        writer.add_document(_document(number, passage))
    if number < 0:
        raise InputError("the pool has no passages: give at least one.")
    writer.commit()
    writer.wait_merging_threads()
    return index


def _schema() -> Schema:
    builder = SchemaBuilder()
    builder.add_text_field("words", tokenizer_name="whitespace", index_option="freq")
    builder.add_unsigned_field("number", fast=True)
    builder.add_bytes_field("passage", stored=True)
    return builder.build()


def _document(number: int, passage: Passage) -> Document:
    document = Document()
    document.add_text("words", " ".join(words(f"{passage['title']} {passage['text']}")))
    document.add_unsigned("number", number)
    stored = {"title": passage["title"], "text": passage["text"]}
    document.add_bytes("passage", json.dumps(stored, ensure_ascii=False).encode())
    return document


def _query(schema: Schema, question: str) -> Query:
    terms = [Query.term_query(schema, "words", word, "freq") for word in dict.fromkeys(words(question))]
    return Query.boolean_query([(Occur.Should, term) for term in terms])
