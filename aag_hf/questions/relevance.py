"""Whether a text can be what a question is about, by the words that they share."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from aag_hf.data.words import words

# Words in a smaller share of the texts are not kept, and weigh as if they were in RARE of them.
COMMON, RARE = 0.02, 0.004
# A text of less relevance is hardly about the question.
LITTLE = 0.1


def common_words(*collections: Iterable[str]) -> dict[str, float]:
    """The words in at least 2 % of the texts of one of some collections, with the share of the texts that hold them.

    Args:
        *collections: Texts of one kind each, such as questions and documents. The largest share counts.

    Returns:
        The share of each word, in [0.02, 1].
    """
    shares: dict[str, float] = {}
    for texts in collections:
        each = list(dict.fromkeys(texts))
        counts = Counter(word for text in each for word in set(words(text)))
        for word, count in counts.items():
            if count >= COMMON * len(each):
                shares[word] = max(shares.get(word, 0.0), count / len(each))
    return shares


def relevance(question: str, text: str, common: Mapping[str, float]) -> float:
    """The share of a question's words that a text holds, where each word counts −log of the share of texts it is in.

    So what a question is about counts, and what all questions ask hardly does.

    Args:
        question: The question.
        text: The text.
        common: The words that tell little, from `common_words`.

    Returns:
        A number in [0, 1]; 1 for a question without a word that counts.

    Example:

    ```python
    common = common_words(questions, documents)
    relevance("What is the capital of Fiji?", "Suva is the capital of Fiji.", common)
    ```
    """
    held = set(words(text))
    weights = {word: -math.log(common.get(word, RARE)) for word in words(question)}
    total = sum(weights.values())
    return sum(weight for word, weight in weights.items() if word in held) / total if total else 1.0
