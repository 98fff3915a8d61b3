"""Files of questions: read, answered in batches, written."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aag_hf.awakening import AwakeningModel, memories_for
from aag_hf.data.jsonl import write_rows
from aag_hf.data.records import read_records
from aag_hf.demo.files import named_alone, uploaded_text
from aag_hf.demo.readers import Readers
from aag_hf.errors import InputError
from aag_hf.evaluation import exact_match
from aag_hf.evaluation.evaluator import given_contexts, given_documents
from aag_hf.hyperlora import DocumentMemory

BATCH = 16
PLAIN = ".txt"

Records = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Answered:
    """The answers of a file.

    Attributes:
        rows: `id`, `question` and `answer`, and where the file has answers `expected`, a list, and `right`.
        seconds: For all of them.
    """

    rows: list[dict[str, Any]]
    seconds: float

    def told(self) -> str:
        """The figures in a line."""
        judged = [row["right"] for row in self.rows if "right" in row]
        match = f", exact match {100 * sum(judged) / len(judged):.1f} % of {len(judged)}" if judged else ""
        return f"{len(self.rows)} question{'s' * (len(self.rows) > 1)} in {self.seconds:.1f} s{match}"


def read_questions(path: Path) -> list[dict[str, Any]]:
    """The records of a file, which need no answers.

    Args:
        path: Text with one question per line, or a file of records.

    Raises:
        InputError: It cannot be read. Messages name the file, and not the folder that holds it.
    """
    with named_alone(path):
        if not path.name.endswith(PLAIN):
            return read_records(path, need_answers=False)
        lines = uploaded_text(path)[1].splitlines()
    questions = [line.strip() for line in lines if line.strip()]
    if not questions:
        raise InputError(f"{path.name}: holds no questions: expected one per line.")
    return [{"id": str(number), "question": question} for number, question in enumerate(questions, start=1)]


def answer(model: AwakeningModel, records: Records, memory: DocumentMemory | None = None) -> list[str]:
    """The answers to some records' questions.

    Args:
        model: The reader.
        records: The records. Their own contexts and documents are read, where the reader reads any.
        memory: One row per document. Each question is answered from the one that its words fit best, instead of from
            its own document.

    Raises:
        InputError: A record lacks what the reader reads.
    """
    questions = [record["question"] for record in records]
    documents = None
    if model.document_encoder is not None and memory is None:
        try:
            documents = given_documents(model, records)
        except InputError as error:
            raise InputError(f"{error} Or have the model remember a document before.") from None
    passages = [record["ctxs"] for record in records] if model.config.fid else None
    contexts = given_contexts(model.config, records)
    memory = None if memory is None else memories_for(questions, memory)
    return model.generate(questions, contexts, passages=passages, memory=memory, documents=documents).answers


def answer_file(
    readers: Readers, path: Path, memory: DocumentMemory | None, on_batch: Callable[[int, int], None]
) -> Answered:
    """Answer the questions of a file, batch by batch, so that others are served in between.

    Args:
        readers: The model among them answers.
        path: As in `read_questions`.
        memory: As in `answer`.
        on_batch: Called with how many questions are answered, and how many there are.

    Raises:
        InputError: As in `read_questions` and `answer`.
    """
    records = read_questions(path)
    rows: list[dict[str, Any]] = []
    start = time.perf_counter()
    for first in range(0, len(records), BATCH):
        on_batch(first, len(records))
        batch = records[first : first + BATCH]
        for record, given in zip(batch, readers.run(answer, readers.model, batch, memory), strict=True):
            rows.append({"id": record["id"], "question": record["question"], "answer": given})
            if "answers" in record:
                expected = record["answers"]
                rows[-1] |= {"expected": expected, "right": exact_match(given, expected)}
    on_batch(len(records), len(records))
    return Answered(rows, time.perf_counter() - start)


def write_answers(answered: Answered, path: Path) -> None:
    """Write the answers as JSON Lines, in which a spreadsheet finds no formula to run."""
    write_rows(answered.rows, path)
