"""The examples of a batch, whose tensors may have a row per example, per answer token or per document."""

from dataclasses import replace
from typing import Any

from torch import Tensor

from aag_hf.collators.padding import IGNORE_INDEX
from aag_hf.hyperlora.document_states import DocumentStates
from aag_hf.trainers.answer_logits import PACKED

TEACHER = "teacher_"
# The name, in collator and model, of the states that memory adapters read.
DOCUMENTS = "documents"
# The columns of a teacher cache have one row per answer token, not per example.
CACHED_BY_TOKEN = {TEACHER + name for name in ("labels", "logits", "top_values", "top_indices", "tail_logsumexp")}


def number_of_rows(inputs: dict[str, Any]) -> int:
    """How many examples a batch has."""
    return len(inputs[PACKED]) - 1 if PACKED in inputs else len(inputs["labels"])


def first_rows(inputs: dict[str, Any], rows: int) -> dict[str, Any]:
    """The first `rows` examples of a batch, however each of its tensors is laid out."""
    if rows == number_of_rows(inputs):
        return inputs
    packed = _first_packed_rows(inputs, rows) if PACKED in inputs else {}
    tokens = int((packed.get("labels", inputs["labels"][:rows]) != IGNORE_INDEX).sum())
    is_cached = inputs.get(TEACHER + "labels", inputs["labels"]).dim() == 1
    first = {
        name: value[: tokens if is_cached and name in CACHED_BY_TOKEN else rows] if isinstance(value, Tensor) else value
        for name, value in inputs.items()
    }
    if DOCUMENTS in inputs:
        # Rows of a batch may read the same document, so the list of which row reads which is cut.
        documents = DocumentStates(**inputs[DOCUMENTS])
        first[DOCUMENTS] = replace(documents, rows=documents.rows_of_questions[:rows])
    return first | packed


def _first_packed_rows(inputs: dict[str, Any], rows: int) -> dict[str, Tensor]:
    end = int(inputs[PACKED][rows])
    by_token = {name: inputs[name][:, :end] for name in ("input_ids", "labels", "position_ids")}
    return by_token | {name: inputs[name][: rows + 1] for name in (PACKED, "cu_seq_lens_k")}
