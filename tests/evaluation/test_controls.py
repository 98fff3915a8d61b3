"""What the controls of documents are made of."""

import pytest

from aag_hf.errors import InputError
from aag_hf.evaluation.controls import controlled_documents


def test_controls_of_documents_are_weighted_sums_of_memories():
    texts = ["a", "a", "b", "c"]
    assert controlled_documents(texts, "none") == [((text,), (1.0,)) for text in texts]
    assert controlled_documents(texts, "no_document") == [((text,), (0.0,)) for text in texts]
    others = controlled_documents(texts, "another_document", seed=3)
    assert others[0] == others[1] and all(other != (text,) for text, (other, _) in zip(texts, others))
    added = controlled_documents(texts, "added_document", seed=3)
    assert added == [((text, *other), (1.0, 1.0)) for text, (other, _) in zip(texts, others)]
    with pytest.raises(InputError, match="several documents"):
        controlled_documents(["a", "a"], "another_document")
