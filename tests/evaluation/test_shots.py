"""Examples in a prompt: fixed by the seed, even over relations, and never about what is asked."""

from collections import Counter

import pytest

from aag_hf.data import load_countries
from aag_hf.errors import InputError
from aag_hf.evaluation.shots import choose_shots

SPLITS = load_countries()


def test_relations_have_as_many_examples_each_as_can_be():
    relations = Counter(record["relation"] for record in SPLITS["train"])
    shots = choose_shots(SPLITS["train"], 2 * len(relations), asked=SPLITS["dev"])
    assert set(Counter(shot["relation"] for shot in shots).values()) == {2}


def test_the_seed_fixes_them_and_more_begin_with_fewer():
    ten = choose_shots(SPLITS["train"], 10, asked=[], seed=1)
    assert choose_shots(SPLITS["train"], 4, asked=[], seed=1) == ten[:4]
    assert choose_shots(SPLITS["train"], 10, asked=[], seed=2) != ten


@pytest.mark.parametrize("change", [{"relation": ["a"]}, {"entity": {"a": 1}}])
def test_an_example_whose_group_is_no_name_is_refused_by_its_id(change):
    records = [{"id": str(i), "question": f"Who is {i}?", "answers": ["x"], **change} for i in range(4)]
    with pytest.raises(InputError, match=f"shots_file, record 0: field '{next(iter(change))}': expected a string"):
        choose_shots(records, 1, asked=[])


def test_no_example_is_asked_or_about_an_entity_that_is():
    records = [{"id": str(i), "question": f"Who is {i}?", "answers": ["x"]} for i in range(4)]
    asked = [{"id": "other", "question": "who is  2", "answers": ["x"]}]
    assert "2" not in {shot["id"] for shot in choose_shots(records, 3, asked=asked)}
    shots = choose_shots(SPLITS["train"], 50, asked=SPLITS["train"][:1])
    assert SPLITS["train"][0]["entity"] not in {shot["entity"] for shot in shots}
    with pytest.raises(InputError, match="has 3 records that are not asked about"):
        choose_shots(records, 4, asked=asked)
