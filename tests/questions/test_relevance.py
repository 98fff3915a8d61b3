"""How much of a question a text covers: what the question is about counts, what all questions ask does not."""

import pytest

from aag_hf import DocumentEncoder
from aag_hf.questions.relevance import common_words, relevance

PLACES = ("Fiji", "Peru", "Chad", "Iran", "Oman", "Cuba", "Mali", "Togo", "Laos", "Niue")
QUESTIONS = [f"What is the capital of {place}?" for place in PLACES]
TEXTS = [f"{place} is a country. Its capital is {place[::-1]}." for place in PLACES]


def test_the_share_of_texts_that_hold_a_word_is_the_largest_of_its_collections():
    common = common_words(QUESTIONS, TEXTS, [])
    assert common["capital"] == common["what"] == common["country"] == 1
    assert common["fiji"] == 0.1
    assert common_words(["once", *map(str, range(99))]) == {}
    assert common_words(["Twice"] * 60 + ["once"]) == {"twice": 0.5, "once": 0.5}


def test_the_thing_asked_about_counts_and_the_words_of_all_questions_do_not():
    common = common_words(QUESTIONS, TEXTS)
    assert relevance("What is the capital of Nuvaria?", "Nuvaria's capital: Brel.", common) == 1
    assert relevance("What is the capital of Nuvaria?", TEXTS[0], common) == 0
    assert relevance("What is its capital?", TEXTS[0], common) == 1
    assert 0 < relevance("Who rules Nuvaria?", "Nuvaria lies in Asia.", common) < 1


@pytest.mark.parametrize("question", ["", "?!", "of the"])
def test_a_question_without_a_word_is_covered_by_everything(question):
    assert relevance(question, "A text.", {}) == 1


def test_other_forms_and_scripts_count_as_the_same_word():
    assert relevance("Où est l'école?", "L\u2019E\u0301COLE est ou\u0300?", {}) == 1
    assert relevance("斐济的首都", "苏瓦是斐济的首都。", {}) == 1
    assert relevance("斐济的首都", "Suva", {}) == 0


def test_an_encoder_keeps_the_common_words(tmp_path, tiny_llama_dir):
    encoder = DocumentEncoder.from_backbone(tiny_llama_dir).fit_statistics(TEXTS)
    assert encoder.relevance("What is the capital of Nuvaria?", TEXTS[0]) == pytest.approx(1 / 3)
    encoder.fit_words(QUESTIONS, TEXTS).save_pretrained(tmp_path)
    loaded = DocumentEncoder.from_pretrained(tmp_path)
    assert loaded.relevance("What is the capital of Nuvaria?", TEXTS[0]) == 0
