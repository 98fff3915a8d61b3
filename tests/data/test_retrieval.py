import json
import unicodedata

import pytest

from aag_hf.data.retrieval import Bm25Retriever, pool_from_records, read_pool, recall_at
from aag_hf.errors import InputError

OSLO = {"title": "Oslo", "text": "Oslo is the capital of Norway."}
BERN = {"title": "Bern", "text": "Bern is the seat of the Swiss government."}
FISH = {"title": "Herring", "text": "Herring swim in shoals through cold seas."}
POOL = [OSLO, BERN, FISH]


def titles(ctxs):
    return [passage["title"] for passage in ctxs]


def test_the_passage_that_shares_words_comes_first_with_falling_scores():
    (first, second) = Bm25Retriever(POOL).search(["What is Norway's capital?", "the Swiss government"], top_k=2)
    assert titles(first)[0] == "Oslo" and titles(second)[0] == "Bern"
    for ctxs in (first, second):
        assert len(ctxs) == 2 and ctxs[0]["score"] > ctxs[1]["score"] and type(ctxs[0]["score"]) is float
        assert {name: ctxs[0][name] for name in ("title", "text")} in POOL


@pytest.mark.parametrize(
    ("question", "text"),
    [
        (unicodedata.normalize("NFD", "Where is Beyoncé?"), "Beyoncé sings."),
        ("ＦＩＪＩ", "Fiji is an island."),
        ("What is C?", "C is a language."),
        ("Wo liegt 東京", "東京 は 首都 です"),
    ],
)
def test_composition_case_width_and_script_make_no_difference(question, text):
    (found,) = Bm25Retriever([*POOL, {"title": "", "text": text}]).search([question], top_k=1)
    assert found[0]["text"] == text and found[0]["score"] > 0


@pytest.mark.parametrize("question", ["Who are they?", "?", "zzz", ""])
def test_a_question_that_shares_no_word_still_gets_its_passages(question):
    assert len(Bm25Retriever(POOL).search([question], top_k=2)[0]) == 2


def test_titles_are_searched_too():
    assert titles(Bm25Retriever(POOL).search(["herring"], top_k=1)[0]) == ["Herring"]


def test_answers_mark_passages_and_never_move_them():
    retriever = Bm25Retriever(POOL)
    questions = ["capital of Norway", "capital of Norway"]
    plain, _ = retriever.search(questions, top_k=3)
    for ctxs, answer in zip(retriever.search(questions, top_k=3, answers=[["Oslo"], ["shoals"]]), ("Oslo", "shoals")):
        assert titles(ctxs) == titles(plain)
        assert [passage["has_answer"] for passage in ctxs] == [answer in passage["text"] for passage in ctxs]


def test_a_label_in_the_pool_has_no_influence():
    labelled = [passage | {"has_answer": passage is FISH, "score": 99.0} for passage in POOL]
    assert Bm25Retriever(labelled).search(["capital"], 3) == Bm25Retriever(POOL).search(["capital"], 3)


def test_pool_holds_each_passage_once_without_labels():
    records = [{"ctxs": [OSLO | {"has_answer": True}, BERN]}, {"ctxs": [OSLO | {"score": 1.0}]}, {}]
    assert pool_from_records(records) == [OSLO, BERN]
    assert Bm25Retriever([OSLO, BERN, OSLO]).passages == [OSLO, BERN]


def test_pool_reads_passages_and_records(tmp_path):
    (tmp_path / "passages.jsonl").write_text(json.dumps(OSLO) + "\n" + json.dumps({"text": "untitled"}) + "\n")
    (tmp_path / "records.json").write_text(json.dumps([{"question": "q", "ctxs": [OSLO, FISH]}]))
    pool = read_pool([tmp_path / "passages.jsonl", tmp_path / "records.json"])
    assert pool == [OSLO, {"title": "", "text": "untitled"}, FISH]


def test_top_k_beyond_the_pool_gives_the_whole_pool():
    assert len(Bm25Retriever(POOL).search(["capital"], top_k=50)[0]) == 3


def test_recall_counts_records_with_an_answer_among_the_first():
    records = [
        {"ctxs": [{"has_answer": a}, {"has_answer": b}]} for a, b in ((True, False), (False, True), (False,) * 2)
    ]
    assert recall_at(records, 1) == pytest.approx(1 / 3) and recall_at(records, 2) == pytest.approx(2 / 3)


def test_bad_pools_and_arguments_are_refused_by_name(tmp_path):
    (tmp_path / "blank.jsonl").write_text(json.dumps({"title": "", "text": " "}) + "\n")
    (tmp_path / "number.jsonl").write_text(json.dumps({"title": "T", "text": 3}) + "\n")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(InputError, match=r"number.jsonl, line 1: field 'text'"):
        read_pool([tmp_path / "number.jsonl"])
    with pytest.raises(InputError, match=r"blank.jsonl: no passages"):
        read_pool([tmp_path / "blank.jsonl"])
    with pytest.raises(InputError, match=r"empty.jsonl: no passages"):
        read_pool([tmp_path / "empty.jsonl"])
    with pytest.raises(InputError, match="no passages"):
        Bm25Retriever([])
    with pytest.raises(InputError, match="top_k is 0"):
        Bm25Retriever(POOL).search(["q"], top_k=0)
    with pytest.raises(InputError, match="answers has 1 entries, questions has 2"):
        Bm25Retriever(POOL).search(["q", "r"], top_k=1, answers=[["a"]])
