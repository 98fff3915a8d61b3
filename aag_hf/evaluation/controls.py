"""Controls: the same reader with an adapter that cannot help. They show which gain comes from the adapter's input."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch

from aag_hf.errors import InputError

Control = Literal[
    "none",
    "off",
    "shuffled",
    "shuffled_within_relation",
    "mean",
    "another_document",
    "no_document",
    "added_document",
    "document_in_prompt",
]
# Texts, and the weight of the memory of each in a sum.
WeightedTexts = tuple[tuple[str, ...], tuple[float, ...]]
OF_FEATURES: tuple[Control, ...] = ("shuffled", "shuffled_within_relation", "mean")
OF_DOCUMENTS: tuple[Control, ...] = ("another_document", "no_document", "added_document", "document_in_prompt")


def check_control(control: str) -> None:
    """Refuse an unknown control.

    Raises:
        InputError: There is no such control; the message names those that there are.
    """
    if control not in get_args(Control):
        raise InputError(f"control must be one of {', '.join(get_args(Control))}, got {control!r}.")


def controlled_features(
    features: torch.Tensor, control: Control, relations: list[str] | None = None, seed: int = 29
) -> torch.Tensor:
    """Features for a control.

    Args:
        features: ``(questions, feature_dim)``.
        control: ``"shuffled"`` gives each question the features of another one, ``"shuffled_within_relation"`` those of
            another question of its relation, and ``"mean"`` the mean of all. Others change nothing.
        relations: The relation of each question.
        seed: Seed of the shuffle.

    Returns:
        ``(questions, feature_dim)``.

    Raises:
        InputError: The control is unknown, or questions have no relation to shuffle within.
    """
    check_control(control)
    if control not in OF_FEATURES:
        return features
    if control == "mean":
        return features.mean(dim=0, keepdim=True).expand_as(features)
    if control == "shuffled":
        return features[_derangement(list(range(len(features))), seed)]
    if relations is None:
        raise InputError("control shuffled_within_relation needs records with a relation.")
    source = list(range(len(features)))
    for relation in sorted(set(relations)):
        members = [i for i, r in enumerate(relations) if r == relation]
        for position, other in zip(members, _derangement(members, seed)):
            source[position] = other
    return features[source]


def controlled_documents(texts: Sequence[str], control: Control, seed: int = 29) -> list[WeightedTexts]:
    """The documents whose memories a question's adapter is the weighted sum of, for a control.

    Args:
        texts: Each question's own document.
        control: ``"another_document"`` gives each question another one's document, ``"no_document"`` its own with
            weight 0, ``"added_document"`` its own and another one; other controls its own.
        seed: Seed of the choice of others.

    Returns:
        For each question, texts and the weight of each.

    Raises:
        InputError: There is no other document.
    """
    if control not in ("another_document", "added_document"):
        weight = 0.0 if control == "no_document" else 1.0
        return [((text,), (weight,)) for text in texts]
    each = list(dict.fromkeys(texts))
    if len(each) < 2:
        raise InputError(f"control {control} needs questions about several documents.")
    other = dict(zip(each, (each[place] for place in _derangement(list(range(len(each))), seed))))
    if control == "another_document":
        return [((other[text],), (1.0,)) for text in texts]
    return [((text, other[text]), (1.0, 1.0)) for text in texts]


def _derangement(items: list[int], seed: int) -> list[int]:
    """The items in an order that leaves none in its place, namely a random cycle through all of them."""
    generator = torch.Generator().manual_seed(seed)
    cycle = [items[i] for i in torch.randperm(len(items), generator=generator).tolist()]
    following = dict(zip(cycle, cycle[1:] + cycle[:1]))
    return [following[item] for item in items]
