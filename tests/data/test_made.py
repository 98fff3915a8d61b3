"""Made countries: every answer stands in its document, nothing is taken from a test country, and a seed decides."""

from aag_hf.data import load_countries, made_countries
from aag_hf.data.answers import has_answer


def test_each_document_states_each_answer_that_is_asked_for():
    records = made_countries(50)
    assert len({record["entity"] for record in records}) == 50
    assert len({record["id"] for record in records}) == len(records)
    for record in records:
        assert has_answer(record["ctxs"][0]["text"], record["answers"]), record
        assert record["entity"] in record["question"]


def test_wording_varies_and_a_seed_decides():
    assert made_countries(20, seed=1) == made_countries(20, seed=1) != made_countries(20, seed=2)
    assert len({record["question"].replace(record["entity"], "") for record in made_countries(50)}) > 20


def test_none_of_them_exists():
    names = {record["entity"] for split in load_countries().values() for record in split}
    assert not names & {record["entity"] for record in made_countries(1000)}
