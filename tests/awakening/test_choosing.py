"""Many documents, one question: which of them it is about."""

import pytest
import torch

from aag_hf import DocumentMemory
from aag_hf.awakening import memories_for
from aag_hf.errors import InputError

TEXTS = ("The capital of Nuvaria is Brel.", "Ostmark pays with the ost.", "Die Hauptstadt von Nordia heißt Grün.")


def memory(texts=TEXTS):
    return DocumentMemory(
        torch.arange(1.0, 4.0).reshape(3, 1, 1, 1).expand(3, 1, 2, 2), ("a", "b", "c"), "x", None, texts
    )


def test_each_question_gets_the_memory_of_the_document_that_shares_its_words():
    chosen = memories_for(["With what does Ostmark pay?", "What is Nuvaria's capital?", "Wie heißt Nordia?"], memory())
    assert chosen.ids == ("b", "a", "c")
    assert chosen.tensor[:, 0, 0, 0].tolist() == [2, 1, 3]


def test_a_question_that_shares_no_word_gets_an_empty_memory():
    chosen = memories_for(["Who wrote Hamlet?", "ost?"], memory())
    assert chosen.tensor[:, 0, 0, 0].tolist() == [0, 2]


def test_of_one_document_everything_is_asked():
    assert memories_for(["Who wrote Hamlet?", "ost?"], memory(None)[1]).ids == ("b", "b")


def test_without_texts_there_is_nothing_to_choose_by():
    with pytest.raises(InputError, match="memories of a, b, c have no texts to choose by"):
        memories_for(["Who?"], memory(None))
