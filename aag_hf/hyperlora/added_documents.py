"""In training, some questions are answered from the sum of several memories, so that sums can be asked later."""

from dataclasses import replace

import torch
import torch.nn.functional as F

from aag_hf.hyperlora.document_states import DocumentStates

# The most memories that are added to a question's own.
MOST = 3


def with_added_documents(documents: DocumentStates, share: float) -> DocumentStates:
    """The documents, where some questions also read up to `MOST` others of the batch.

    Args:
        documents: The documents of a batch.
        share: The probability that a question does so, in [0, 1].

    Returns:
        The same documents with `weights`. Its draws come from torch's own generator.
    """
    rows, count = documents.rows_of_questions, len(documents.states)
    own = F.one_hot(rows, count).float()
    added = torch.randint(1, MOST + 1, (len(rows), 1)) * (torch.rand(len(rows), 1) < share)
    # A random order of the documents, in which the question's own is the last.
    place = (torch.rand(len(rows), count) + 2 * own.cpu()).argsort(1).argsort(1)
    return replace(documents, weights=own + (place < added.clamp(max=count - 1)).to(own))
