"""Reads the usual formats of question answering data as records. The keys of a row tell its format."""

import re
from typing import Any

_QUOTED_TITLE = re.compile(r'"(?P<title>[^\n]*)"\n(?P<text>.*)', re.DOTALL)
_DPR_LISTS = ("positive_ctxs", "negative_ctxs", "hard_negative_ctxs")


def to_record(row: dict[str, Any], default_id: str) -> dict[str, Any]:
    """`row` with the names of a record. Errors in it stay, for the check that follows.

    Understands records, DPR and FiD rows (`question`, `answers`, `ctxs`), pyserini's (`contexts`), NQ-open
    (`question`, `answer`) and WebQuestions (`qText`, `answers`, `qId`). Columns with other names are kept as they are.

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
    if "contexts" in record and "ctxs" not in record and _is_list_of_objects(record["contexts"]):
        record["ctxs"] = record.pop("contexts")
    identifier = record.pop("id", None)
    if identifier is None:
        identifier = default_id
    if isinstance(identifier, int) and not isinstance(identifier, bool):
        identifier = str(identifier)
    # A `datasets` column holds None if a row lacks the optional field.
    record = {name: value for name, value in record.items() if value is not None or name in ("question", "answers")}
    if isinstance(record.get("ctxs"), list):
        record["ctxs"] = [to_passage(passage) for passage in record["ctxs"]]
    return {"id": identifier, **record}


def to_passage(passage: Any) -> Any:
    """`passage` with the names of a record's passages: `title`, `text`, `score` and `has_answer`.

    Also understands PopQA's `hasanswer`, labels that are 0 or 1, scores that are text, and pyserini's passages, whose
    `contents` or `text` begin with the title in quotation marks.
    """
    if not isinstance(passage, dict):
        return passage
    passage = {name: value for name, value in passage.items() if value is not None}
    for name, ours in (("contents", "text"), ("hasanswer", "has_answer")):
        if name in passage and ours not in passage:
            passage[ours] = passage.pop(name)
    if "title" not in passage:
        passage = {"title": "", **passage}
        quoted = _QUOTED_TITLE.match(passage["text"]) if isinstance(passage.get("text"), str) else None
        if quoted:
            passage |= {"title": quoted["title"], "text": quoted["text"]}
    if isinstance(passage.get("score"), str):
        # DPR writes scores as text.
        passage["score"] = _number(passage["score"])
    if passage.get("has_answer") in (0, 1):
        passage["has_answer"] = bool(passage["has_answer"])
    return passage


def passages_of(row: Any) -> list[Any]:
    """The passages in a row of a pool.

    Understands passages, records with `ctxs`, DPR's training files (`positive_ctxs`, `hard_negative_ctxs`, …) and
    HotpotQA's `context` of titles with sentences.
    """
    if not isinstance(row, dict):
        return [row]
    record = to_record(row, "")
    of_dpr = [name for name in _DPR_LISTS if isinstance(row.get(name), list)]
    if isinstance(record.get("ctxs"), list):
        return record["ctxs"]
    if of_dpr:
        return [to_passage(passage) for name in of_dpr for passage in row[name]]
    if isinstance(row.get("context"), list) and all(map(_is_titled_sentences, row["context"])):
        return [{"title": title, "text": "".join(sentences)} for title, sentences in row["context"]]
    return [to_passage(row)]


def _is_titled_sentences(item: Any) -> bool:
    if not (isinstance(item, list) and len(item) == 2 and isinstance(item[0], str) and isinstance(item[1], list)):
        return False
    return all(isinstance(sentence, str) for sentence in item[1])


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
