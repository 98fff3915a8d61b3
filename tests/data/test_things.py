"""Texts about made-up things: what each record promises, and that the wordings fit each other."""

import random
import string
from collections import Counter, defaultdict

import pytest

from aag_hf.data import made_things
from aag_hf.data.invented import invented_word, spelled
from aag_hf.data.things import DRAWN, read_wordings


@pytest.fixture(scope="module")
def records():
    return made_things(400)


def test_each_question_is_about_its_thing_and_its_answer_stands_in_its_text(records):
    for record in records:
        (passage,) = record["ctxs"]
        (answer,) = record["answers"]
        assert passage["has_answer"] and answer.lower() in passage["text"].lower()
        name = record["entity"].lower()
        assert name in record["question"].lower() and name in passage["text"].lower()
        assert answer.lower() not in record["question"].lower().replace(name, "")
        assert not {"{", "}"} & set(record["question"] + passage["text"])


def test_ids_are_unique_and_a_seed_gives_its_own_texts(records):
    assert max(Counter(record["id"] for record in records).values()) == 1
    assert made_things(20, seed=1) == made_things(20, seed=1) != made_things(20, seed=2)
    assert not {record["id"] for record in records} & {record["id"] for record in made_things(20, seed=1)}
    assert made_things(20) == [record for record in records if int(record["id"].split("-")[3]) < 20]


def test_a_quarter_of_the_texts_tell_the_same_properties_of_two_things(records):
    texts = defaultdict(lambda: defaultdict(dict))
    for record in records:
        texts[record["ctxs"][0]["text"]][record["entity"]][record["relation"]] = record["answers"]
    pairs = [things for things in texts.values() if len(things) == 2]
    assert all(len(things) <= 2 for things in texts.values()) and 70 < len(pairs) < 130
    assert all(len({frozenset(told) for told in things.values()}) == 1 for things in pairs)
    apart = [one != other for one, other in (things.values() for things in pairs)]
    assert sum(apart) > 0.95 * len(apart)


def test_kinds_and_wordings_vary(records):
    assert len({record["entity"].split()[0] for record in records}) > 100
    assert len({record["question"].replace(record["entity"], "") for record in records}) > 400


def test_the_wordings_fit_each_other():
    known = read_wordings()
    assert all(len(known.relations_of(kind)) >= 5 for kind in known.kinds)
    for name, relation in known.relations.items():
        assert set(relation.kinds) <= set(known.kinds), name
        assert isinstance(relation.value, dict) or relation.value in {*DRAWN, *known.values}, name
        for sentence in [*relation.sentences, *relation.value_first]:
            fields = {field for _, field, _, _ in string.Formatter().parse(sentence) if field is not None}
            assert "v" in fields and fields <= {"n", "p", "v"} and fields & {"n", "p"}, (name, sentence)
        for question in relation.questions:
            fields = {field for _, field, _, _ in string.Formatter().parse(question) if field is not None}
            assert fields in ({"e"}, {"p"}), (name, question)


def test_numbers_in_words():
    assert [spelled(number) for number in (0, 7, 19, 20, 42, 99)] == [
        "zero",
        "seven",
        "nineteen",
        "twenty",
        "forty-two",
        "ninety-nine",
    ]
    assert invented_word(random.Random(1))[0].isupper()
