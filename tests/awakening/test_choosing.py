"""Many documents, one question: which of them it is about."""

import pytest
import torch

from aag_hf import DocumentMemory
from aag_hf.awakening import fitting_memories, memories_for
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


class Words:
    """Stands for an encoder: the share of a question's words that a text holds."""

    def relevance(self, question, text):
        asked = question.strip("?").split()
        return sum(word in text for word in asked) / len(asked)


def test_a_document_that_covers_too_little_of_a_question_is_left_out_and_said():
    questions = ["Ostmark pays?", "Ostmark eats what?", "Who wrote Hamlet?"]
    chosen = memories_for(questions, memory())
    found = fitting_memories(questions, chosen, Words(), min_relevance=0.5)
    assert found.documents == ["b", None, None]
    assert found.relevance == pytest.approx([1, 1 / 3, 0])
    assert found.memory.tensor[:, 0, 0, 0].tolist() == [2, 0, 0]
    assert fitting_memories(questions, chosen, Words()).documents == ["b", "b", None]


def test_a_single_document_answers_everything_unless_coverage_is_asked_for():
    assert fitting_memories(["Who wrote Hamlet?"], memory()[0], Words()).documents == ["a"]
    assert fitting_memories(["Who wrote Hamlet?"], memory()[0], Words(), 0.1).documents == [None]


def test_of_a_memory_without_text_the_coverage_is_unknown():
    found = fitting_memories(["Who?"], memory(None)[0], Words(), min_relevance=1)
    assert (found.documents, found.relevance, found.memory.tensor[0, 0, 0, 0]) == (["a"], [None], 1)


def test_a_coverage_out_of_range_is_refused():
    with pytest.raises(InputError, match="min_relevance is 2: expected a number from 0 to 1"):
        fitting_memories(["Who?"], memory()[0], Words(), min_relevance=2)
