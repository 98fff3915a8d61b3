"""Controls: the same reader with features that cannot help, so that a gain can be told from a change of weights."""

from typing import Literal, get_args

import torch

from aag_hf.errors import InputError

Control = Literal["none", "shuffled", "shuffled_within_relation", "mean", "off"]


def controlled_features(
    features: torch.Tensor, control: Control, relations: list[str] | None = None, seed: int = 29
) -> torch.Tensor:
    """Features for a control.

    Args:
        features: ``(questions, feature_dim)``.
        control: ``"shuffled"`` gives each question the features of another one, ``"shuffled_within_relation"`` those of
            another question of its relation, ``"mean"`` the mean of all; ``"none"`` and ``"off"`` leave them alone.
        relations: Each question's relation.
        seed: Of the shuffle.

    Returns:
        ``(questions, feature_dim)``.

    Raises:
        InputError: An unknown control, or questions without a relation to shuffle within.
    """
    if control not in get_args(Control):
        raise InputError(f"control must be one of {', '.join(get_args(Control))}, got {control!r}.")
    if control in ("none", "off"):
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


def _derangement(items: list[int], seed: int) -> list[int]:
    """The items in an order that leaves none in its place: a random cycle through all of them."""
    generator = torch.Generator().manual_seed(seed)
    cycle = [items[i] for i in torch.randperm(len(items), generator=generator).tolist()]
    following = dict(zip(cycle, cycle[1:] + cycle[:1]))
    return [following[item] for item in items]
