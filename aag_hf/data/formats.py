"""Reads the usual formats of question answering data as records. The keys of a row tell its format."""

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

_QUOTED_TITLE = re.compile(r'"(?P<title>[^\n]*)"\n(?P<text>.*)', re.DOTALL)
_DESCRIPTION = re.compile(r'\(description (?:"((?:[^"\\]|\\.)*)"|([^()]*))\)')
_DPR_LISTS = ("positive_ctxs", "negative_ctxs", "hard_negative_ctxs")


def rows_of(row: Any) -> Iterator[Any]:
    """The rows in a row: SQuAD's articles hold a row for each question, other formats are one."""
    if not (isinstance(row, dict) and _have(row.get("paragraphs"), "qas")) or _has_question(row):
        yield row
        return
    for paragraph in row["paragraphs"]:
        passage = {"title": row.get("title") or "", "text": paragraph.get("context")}
        questions = paragraph.get("qas") or []
        for question in questions if isinstance(questions, list) else [questions]:
            yield {**question, "ctxs": [passage]} if isinstance(question, dict) else question


def to_record(row: dict[str, Any], default_id: str) -> dict[str, Any]:
    """`row` with the names of a record. Errors in it stay, for the check that follows.

    Understands records; DPR and FiD rows (`question`, `answers`, `ctxs`) and pyserini's (`contexts`); NQ-open
    (`question`, `answer`) and EntityQuestions; WebQuestions (`qText`, `answers`, `qId`, or `utterance` and
    `targetValue`); KILT (`input`, `output`); TriviaQA (`Question`, `Answer` with its aliases, or the Hub's `answer`);
    SQuAD (answers with their places, and the `context`); HotpotQA (`_id`, and the `context` of titles with sentences);
    PopQA (`possible_answers`); MuSiQue (`answer_aliases`, and `paragraphs` with a `paragraph_text`). Answers in a text
    that is a list of JSON or Python are read as that list. Columns with other names are kept as they are.

    Args:
        row: One row of the source.
        default_id: The identifier of a row that has none.
    """
    record = dict(row)
    _name_question(record)
    _name_answers(record)
    _name_passages(record)
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

    Also understands PopQA's `hasanswer`, MuSiQue's `paragraph_text`, labels that are 0 or 1, scores that are text, and
    pyserini's passages, whose `contents` or `text` begin with the title in quotation marks.
    """
    if not isinstance(passage, dict):
        return passage
    passage = {name: value for name, value in passage.items() if value is not None}
    for name, ours in (("contents", "text"), ("paragraph_text", "text"), ("hasanswer", "has_answer")):
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

    Understands passages, records with `ctxs`, DPR's training files (`positive_ctxs`, `hard_negative_ctxs`, …), and the
    contexts of SQuAD, HotpotQA and MuSiQue.
    """
    if not isinstance(row, dict):
        return [row]
    of_dpr = [name for name in _DPR_LISTS if isinstance(row.get(name), list)]
    if of_dpr:
        return [to_passage(passage) for name in of_dpr for passage in row[name]]
    if _have(row.get("paragraphs"), "context"):
        title = row.get("title") or ""
        return [{"title": title, "text": paragraph.get("context")} for paragraph in row["paragraphs"]]
    record = to_record(row, "")
    return record["ctxs"] if isinstance(record.get("ctxs"), list) else [to_passage(row)]


def _has_question(row: dict[str, Any]) -> bool:
    record = dict(row)
    _name_question(record)
    return "question" in record


def _name_question(record: dict[str, Any]) -> None:
    for question, identifier in (
        ("qText", "qId"),
        ("Question", "QuestionId"),
        ("utterance", None),
        ("input", None),
        ("question", "question_id"),
        ("question", "_id"),
    ):
        is_kilt = question == "input"
        if question not in record or (is_kilt and not _is_list_of_objects(record.get("output"))):
            continue
        record.setdefault("question", record[question])
        if question != "question":
            del record[question]
        if identifier in record and record.get("id") is None:
            record["id"] = record.pop(identifier)


def _name_answers(record: dict[str, Any]) -> None:
    if "answers" not in record:
        if "possible_answers" in record:
            record["answers"] = record.pop("possible_answers")
        elif isinstance(record.get("targetValue"), str):
            found = _DESCRIPTION.findall(record.pop("targetValue"))
            record["answers"] = [quoted.replace('\\"', '"') or plain for quoted, plain in found]
        elif _is_list_of_objects(record.get("output")):
            record["answers"] = _each_once(item.get("answer") for item in record.pop("output"))
        else:
            _name_answer(record)
    answers = record.get("answers")
    if isinstance(answers, str):
        record["answers"] = _listed(answers)
    elif isinstance(answers, dict) and isinstance(answers.get("text"), list):
        record["answers"] = _each_once(answers["text"])
    elif _is_list_of_objects(answers) and answers:
        record["answers"] = _each_once(answer.get("text") for answer in answers)


def _name_answer(record: dict[str, Any]) -> None:
    """The only answer, which in TriviaQA and MuSiQue has aliases."""
    for name, value, aliases in (("Answer", "Value", "Aliases"), ("answer", "value", "aliases")):
        if name not in record:
            continue
        answer = record.pop(name)
        if isinstance(answer, dict):
            others = answer.get(aliases)
            answer = _each_once([answer.get(value), *(others if isinstance(others, list) else [])])
        elif isinstance(answer, str) and not answer.lstrip().startswith(("['", '["')):
            others = record.pop("answer_aliases", None)
            answer = _each_once([answer, *(others if isinstance(others, list) else [])])
        record["answers"] = answer


def _name_passages(record: dict[str, Any]) -> None:
    if "ctxs" in record:
        return
    context = record.get("context")
    if "contexts" in record and _is_list_of_objects(record["contexts"]):
        record["ctxs"] = record.pop("contexts")
    elif _have(record.get("paragraphs"), "paragraph_text"):
        record["ctxs"] = record.pop("paragraphs")
    elif isinstance(context, list) and context and all(map(_is_titled_sentences, context)):
        record["ctxs"] = [{"title": title, "text": "".join(sentences)} for title, sentences in record.pop("context")]
    elif isinstance(context, dict) and isinstance(context.get("sentences"), list):
        titles = context.get("title")
        pairs = list(zip(titles if isinstance(titles, list) else [], context["sentences"]))
        if len(pairs) == len(context["sentences"]) and all(_is_titled_sentences(list(pair)) for pair in pairs):
            record["ctxs"] = [{"title": title, "text": "".join(sentences)} for title, sentences in pairs]
            del record["context"]
    elif isinstance(context, str) and isinstance(record.get("title"), str) and "question" in record:
        record["ctxs"] = [{"title": record.pop("title"), "text": record.pop("context")}]


def _listed(text: str) -> list[str] | str:
    """The list of texts that `text` is in JSON or Python, or `text` itself."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None if _has_neighbours(text) else _literal(text)
    return found if isinstance(found, list) and all(isinstance(item, str) for item in found) else text


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _has_neighbours(text: str) -> bool:
    """Whether texts stand side by side without a comma, as numpy prints them: Python would join them."""
    try:
        kinds = [token.type for token in tokenize.generate_tokens(io.StringIO(text.strip()).readline)]
    except (tokenize.TokenError, SyntaxError):
        return True
    kinds = [kind for kind in kinds if kind not in (tokenize.NL, tokenize.NEWLINE)]
    return any(one == other == tokenize.STRING for one, other in pairwise(kinds))


def _each_once(values: Any) -> list[Any]:
    """The values in their order, each once, without those that are missing."""
    found: list[Any] = []
    for value in values:
        if value is not None and value not in found:
            found.append(value)
    return found


def _is_titled_sentences(item: Any) -> bool:
    if not (isinstance(item, list) and len(item) == 2 and isinstance(item[0], str) and isinstance(item[1], list)):
        return False
    return all(isinstance(sentence, str) for sentence in item[1])


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _have(value: Any, name: str) -> bool:
    """Whether `value` is a list of objects of which some have `name`."""
    return _is_list_of_objects(value) and any(name in item for item in value)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
