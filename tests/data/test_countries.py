import sys
from collections import Counter

import pytest

from aag_hf.data import load_countries
from aag_hf.data.answers import has_answer
from aag_hf.data.records import check_record
from aag_hf.errors import InputError


@pytest.fixture(scope="module")
def countries():
    pytest.importorskip("countryinfo", reason="needs the quickstart extra: countryinfo")
    return load_countries()


def test_a_country_is_in_exactly_one_split(countries):
    entities = [entity for records in countries.values() for entity in {record["entity"] for record in records}]
    assert len(entities) == len(set(entities)) > 200


def test_splits_have_the_stated_sizes(countries):
    assert list(countries) == ["train", "dev", "test"]
    train, dev, test = map(len, countries.values())
    assert 1200 <= train <= 1500 and 120 <= dev <= 200 and 250 <= test <= 300


def test_each_relation_is_asked_once_of_each_country_in_several_wordings(countries):
    for records in countries.values():
        asked = Counter((record["entity"], record["relation"]) for record in records)
        assert set(asked.values()) == {1}
    relations = {record["relation"] for record in countries["train"]}
    for relation in relations:
        rows = [record for record in countries["train"] if record["relation"] == relation]
        wordings = {row["question"].lower().replace(row["entity"].lower(), "").replace("the ", "") for row in rows}
        assert len(rows) * 7 == len(countries["train"]) and len(wordings) >= 4


def test_every_record_keeps_the_contract_and_its_document_states_the_answer(countries):
    identifiers = set()
    for records in countries.values():
        for record in records:
            check_record(record, record["id"])
            identifiers.add(record["id"])
            (document,) = record["ctxs"]
            assert record["answers"][0] in document["text"] and document["has_answer"] is True
            assert has_answer(document["text"], record["answers"]) and document["title"] == record["entity"]
            assert record["dataset"] == "countries"
    assert len(identifiers) == sum(map(len, countries.values()))


def test_known_facts_come_out_right(countries):
    answers = {record["id"]: record["answers"] for records in countries.values() for record in records}
    assert answers["countries-fr-capital"] == ["Paris"]
    assert answers["countries-ch-currency"][0] == "CHF"
    assert answers["countries-br-continent"][0] == "South America"
    assert answers["countries-ca-continent"][0] == "North America"
    assert answers["countries-co-capital"] == ["Bogotá", "Bogota"]
    assert answers["countries-de-calling_code"] == ["+49", "49"]
    assert answers["countries-th-subregion"][:2] == ["South-eastern Asia", "South-east Asia"]


def test_a_seed_decides_everything(countries):
    assert load_countries(29) == countries
    other = load_countries(30)
    assert {record["entity"] for record in other["test"]} != {record["entity"] for record in countries["test"]}


def test_there_is_one_document_for_each_country(countries):
    from aag_hf.data.countries import country_documents

    documents = {document["title"]: document["text"] for document in country_documents()}
    used = {record["entity"]: record["ctxs"][0]["text"] for records in countries.values() for record in records}
    assert documents == used
    assert all("  " not in text and "None" not in text for text in documents.values())


def test_missing_package_is_one_clear_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "countryinfo", None)
    with pytest.raises(InputError, match="pip install countryinfo"):
        load_countries()
