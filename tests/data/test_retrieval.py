import json
import unicodedata

import pytest

from aag_hf.data.pool import each_once, read_pool
from aag_hf.data.retrieval import Bm25Retriever, PassageIndex, recall_at
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
        assert ctxs[0]["score"] > 0 and type(ctxs[0]["score"]) is float
        assert {name: ctxs[0][name] for name in ("title", "text")} in POOL


@pytest.mark.parametrize(
    ("question", "text"),
    [
        (unicodedata.normalize("NFD", "Where is Beyoncé?"), "Beyoncé sings."),
        ("ＦＩＪＩ", "Fiji is an island."),
        ("What is C?", "C is a language."),
        ("Wo liegt 東京", "東京 は 首都 です"),
        ("日本の首都はどこですか", "東京は日本の首都である"),
        ("เมืองหลวง", "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย"),
        ("हिन्दी", "हिन्दी एक भाषा है"),
    ],
)
def test_composition_case_width_and_script_make_no_difference(question, text):
    (found,) = Bm25Retriever([*POOL, {"title": "", "text": text}]).search([question], top_k=1)
    assert found[0]["text"] == text and found[0]["score"] > 0


@pytest.mark.parametrize("question", ["Who are they?", "?", "zzz", ""])
def test_where_no_passage_shares_a_word_the_first_of_the_pool_have_score_0(question):
    assert Bm25Retriever(POOL).search([question], top_k=2) == [[OSLO | {"score": 0.0}, BERN | {"score": 0.0}]]


def test_each_question_has_as_many_passages_and_none_twice():
    (found,) = Bm25Retriever(POOL).search(["herring"], top_k=3)
    assert titles(found) == ["Herring", "Oslo", "Bern"] and [p["score"] > 0 for p in found] == [True, False, False]


def test_of_equal_passages_the_first_of_the_pool_come_first(tmp_path):
    pool = [{"title": f"{number}", "text": "one seal swims"} for number in range(40)]
    for index in (Bm25Retriever(pool), PassageIndex.build(pool, tmp_path)):
        assert titles(index.search(["seal"], top_k=5)[0]) == ["0", "1", "2", "3", "4"]


def test_a_saved_index_finds_what_one_in_memory_does(tmp_path):
    PassageIndex.build(POOL, tmp_path)
    questions = ["What is Norway's capital?", "cold seas", "zzz"]
    saved = PassageIndex.open(tmp_path)
    assert saved.search(questions, top_k=3) == Bm25Retriever(POOL).search(questions, top_k=3)
    assert len(saved) == 3


def test_what_is_no_index_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no index"):
        PassageIndex.open(tmp_path)
    (tmp_path / "meta.json").write_text("{}")
    with pytest.raises(InputError, match="not a whole index"):
        PassageIndex.open(tmp_path)


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
    assert list(each_once([OSLO | {"has_answer": True}, BERN, OSLO | {"score": 1.0}])) == [OSLO, BERN]


def test_in_a_long_pool_too_each_passage_stands_once_in_its_first_place():
    passages = [{"title": "", "text": str(number % 7001)} for number in range(30_000)]
    assert [passage["text"] for passage in each_once(passages)] == [str(number) for number in range(7001)]


def test_pool_reads_passages_and_records(tmp_path):
    (tmp_path / "passages.jsonl").write_text(json.dumps(OSLO) + "\n" + json.dumps({"text": "untitled"}) + "\n")
    (tmp_path / "records.json").write_text(json.dumps([{"question": "q", "ctxs": [OSLO, FISH]}]))
    pool = read_pool([tmp_path / "passages.jsonl", tmp_path / "records.json"])
    assert list(pool) == [OSLO, {"title": "", "text": "untitled"}, FISH]


def test_top_k_beyond_the_pool_gives_all_of_it():
    assert len(Bm25Retriever(POOL).search(["capital of the seas"], top_k=50)[0]) == 3


def test_recall_counts_records_with_an_answer_among_the_first():
    labels = [(True, False), (False, True), (False, False), ()]
    records = [{"answers": ["a"], "ctxs": [{"has_answer": label} for label in found]} for found in labels]
    assert recall_at([*records, {"ctxs": []}], [1, 2]) == {1: 0.25, 2: 0.5}
    assert recall_at([{"ctxs": []}], [1]) == {}


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


@pytest.mark.parametrize("suffix", [".store", ".fast", ".term", ".idx", ".fieldnorm"])
def test_an_index_with_a_file_cut_short_is_refused_in_one_line(tmp_path, suffix):
    passages = [{"title": f"t{i}", "text": f"word {i} other {i % 13}"} for i in range(200)]
    PassageIndex.build(passages, tmp_path)
    for path in tmp_path.glob(f"*{suffix}"):
        path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(InputError, match=r"not a whole index .*make it again with `aag index`") as refusal:
        PassageIndex.open(tmp_path).search(["word 3"], top_k=3)
    assert "\n" not in str(refusal.value)
