"""The field's formats of question answering data, told apart by their keys, as records."""

from typing import Any


def to_record(row: dict[str, Any], default_id: str) -> dict[str, Any]:
    """`row` under the names of a record; what is wrong in it stays, for the check that follows.

    Understands records, DPR and FiD rows (`question`, `answers`, `ctxs`), NQ-open (`question`, `answer`) and
    WebQuestions (`qText`, `answers`, `qId`). Columns with other names are kept as they are.

    Args:
        row: One row of the source.
        default_id: The identifier of a row that has none.
    """
    record = dict(row)
    if "qText" in record and "question" not in record:
        record["question"] = record.pop("qText")
        record.setdefault("id", record.pop("qId", default_id))
    if "answer" in record and "answers" not in record:
        answer = record.pop("answer")
        record["answers"] = [answer] if isinstance(answer, str) else answer
    identifier = record.pop("id", None)
    if identifier is None:
        identifier = default_id
    if isinstance(identifier, int) and not isinstance(identifier, bool):
        identifier = str(identifier)
    # A `datasets` column says None where a row lacks the optional field.
    record = {name: value for name, value in record.items() if value is not None or name in ("question", "answers")}
    if isinstance(record.get("ctxs"), list):
        record["ctxs"] = [_to_passage(passage) for passage in record["ctxs"]]
    return {"id": identifier, **record}


def _to_passage(passage: Any) -> Any:
    if not isinstance(passage, dict):
        return passage
    passage = {name: value for name, value in passage.items() if value is not None}
    passage = {"title": "", **passage}
    if isinstance(passage.get("score"), str):
        # DPR writes scores as text.
        passage["score"] = _number(passage["score"])
    return passage


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
