"""A long text in passages: nothing is lost, and no passage is long."""

import pytest

from aag_hf.awakening.documents import MOST_PASSAGES, PASSAGE_WORDS, in_passages, named_passages
from aag_hf.data import load_countries
from aag_hf.data.words import words

TEXTS = list(dict.fromkeys(record["ctxs"][0]["text"] for record in load_countries()["train"]))[:30]


@pytest.mark.parametrize("between", [" ", "\n\n", "\n \n\n"])
@pytest.mark.parametrize("count", [4, 5, 30])
def test_passages_are_the_text_and_end_with_sentences(between, count):
    text = between.join(TEXTS[:count])
    passages = in_passages(text)
    assert " ".join(passages).split() == text.split()
    assert all(passage.endswith(".") and len(words(passage)) <= 1.3 * PASSAGE_WORDS for passage in passages)
    # Paragraphs stay apart, and sentences alone are packed.
    assert len(passages) == count if between != " " else len(passages) < count


def test_a_short_text_is_one_passage_also_in_paragraphs():
    for text in (TEXTS[0], "\n\n".join(TEXTS[:2]), "", " \n"):
        assert in_passages(text) == [text]
    assert named_passages("name", TEXTS[0]) == [("name", TEXTS[0])]


def test_a_heading_belongs_to_the_paragraph_below_it():
    passages = in_passages("\n\n".join(part for text in TEXTS for part in ("A heading", text)))
    assert len(passages) == len(TEXTS) and all(passage.startswith("A heading ") for passage in passages)
    assert in_passages("\n\n".join([*TEXTS, "The end"]))[-1] == "The end"


def test_long_sentences_other_scripts_and_long_texts():
    assert in_passages("word " * 500) == [("word " * 500).rstrip()]
    assert len(in_passages("日本の首都は東京です。" * 40)) > 2
    many = in_passages("\n\n".join(TEXTS * 20))
    assert MOST_PASSAGES / 2 < len(many) <= MOST_PASSAGES
    assert " ".join(many).split() == " ".join(TEXTS * 20).split()
