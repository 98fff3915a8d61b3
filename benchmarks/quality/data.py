"""The data of the study: records to train on, and others to measure on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aag_hf.data import load_countries, made_countries, made_things, read_records
from aag_hf.data.countries import country_documents
from aag_hf.data.retrieval import Bm25Retriever

PASSAGES = Path(__file__).parent / "passages.jsonl"
Records = list[dict[str, Any]]


@dataclass(frozen=True)
class Split:
    """Records about different things, so that no document of `test` stands in `train`."""

    train: Records
    test: Records


def load_split(name: str, natural_questions: Path | None) -> Split:
    """The data of a name.

    Args:
        name: ``countries`` trains on 64 real and 400 made-up countries, and tests 36 others; ``countries_choice``
            tests 36 more, to choose settings on. ``nq`` has the gold passages of Natural Questions, ``nq_choice`` tests
            200 of its training questions, and ``nq_bm25`` has the passage that BM25 finds among all of them.
            ``passages`` trains as ``countries`` does, and tests ten short texts about other things. ``things`` trains
            on ``countries`` and 1,200 texts about made-up things, and tests 60 others. ``mixed`` trains as ``things``
            and ``nq_choice`` together, and tests the ten short texts.
        natural_questions: A folder with ``train.jsonl.gz`` and ``dev.jsonl.gz``.
    """
    if name.startswith("countries"):
        return _countries(for_choices=name.endswith("_choice"))
    if name == "passages":
        return Split(_countries(for_choices=False).train, read_records(PASSAGES))
    if name == "things":
        return Split(_things(), made_things(60, 999))
    if natural_questions is None:
        raise SystemExit(f"{name} needs --nq FOLDER, with train.jsonl.gz and dev.jsonl.gz.")
    train, dev = (read_records(natural_questions / f"{split}.jsonl.gz") for split in ("train", "dev"))
    if name == "nq_bm25":
        found = Bm25Retriever([record["ctxs"][0] for record in [*train, *dev]])
        train, dev = _with_found(train, found), _with_found(dev, found)
    if name == "nq_choice":
        return Split(*_by_title(train, 200))
    if name == "mixed":
        return Split([*_by_title(train, 200)[0], *_things()], read_records(PASSAGES))
    return Split(_by_title(train, 200)[0], dev)


def unrelated_texts(name: str) -> list[str]:
    """Texts of another kind than the documents of the data of a name: about countries or, for these, other things."""
    if name.startswith("countries"):
        return list(dict.fromkeys(record["ctxs"][0]["text"] for record in read_records(PASSAGES)))
    return [document["text"] for document in country_documents()[:20]]


def _countries(for_choices: bool) -> Split:
    parts = load_countries(17)
    names = {part: list(dict.fromkeys(record["entity"] for record in records)) for part, records in parts.items()}
    learnt = set(names["train"][48:112])
    asked = set((names["dev"][:10] + names["train"][:26]) if for_choices else names["test"][:36])
    records = [record for part in parts.values() for record in part]
    train = [record for record in records if record["entity"] in learnt]
    return Split([*train, *made_countries(400, 17)], [record for record in records if record["entity"] in asked])


def _things() -> Records:
    return [*_countries(for_choices=False).train, *made_things(1200, 17)]


def _by_title(records: Records, count: int) -> tuple[Records, Records]:
    """The records, apart from about the last `count`, none of which is about a title of the others."""
    titles = list(dict.fromkeys(record["ctxs"][0]["title"] for record in records))
    kept, rest = [], []
    by_title: dict[str, Records] = {title: [] for title in titles}
    for record in records:
        by_title[record["ctxs"][0]["title"]].append(record)
    for title in reversed(titles):
        (rest if len(rest) < count else kept).extend(by_title[title])
    return kept, rest


def _with_found(records: Records, retriever: Bm25Retriever) -> Records:
    """The records with the passage that was found for each question, instead of its gold passage."""
    questions, answers = [record["question"] for record in records], [record["answers"] for record in records]
    return [record | {"ctxs": ctxs} for record, ctxs in zip(records, retriever.search(questions, 1, answers))]
