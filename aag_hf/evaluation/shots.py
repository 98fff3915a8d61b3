"""Few-shot examples: answered questions that stand before a question in its prompt."""

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from aag_hf.errors import InputError
from aag_hf.evaluation.scores import check_groups

Records = Sequence[dict[str, Any]]


def choose_shots(records: Records, count: int, *, asked: Records, seed: int = 29) -> list[dict[str, Any]]:
    """Draw examples, the same for all questions, as evenly as possible over the records' relations.

    Args:
        records: Records to draw from. Those without a `relation` count as one relation.
        count: How many to draw. A larger draw begins with the examples of a smaller one.
        asked: The records that will be asked: none of their questions, and nothing about their entities, is drawn.
        seed: Seed of the draw.

    Raises:
        InputError: There are fewer than `count`, or one has a relation or an entity that is neither text nor a number.
    """
    check_groups(records, "shots_file")
    questions = {_comparable(record["question"]) for record in asked}
    entities = {record["entity"] for record in asked if "entity" in record}
    by_relation = defaultdict(list)
    for record in records:
        if _comparable(record["question"]) not in questions and record.get("entity") not in entities:
            by_relation[record.get("relation")].append(record)
    draw = random.Random(seed)  # nosec B311 # which examples are drawn is no secret
    groups = list(by_relation.values())
    for group in groups:
        draw.shuffle(group)
    draw.shuffle(groups)
    rounds = range(max(map(len, groups), default=0))
    drawn = [group[number] for number in rounds for group in groups if number < len(group)][:count]
    if len(drawn) < count:
        raise InputError(
            f"shots is {count}, and the shots_file has {len(drawn)} records that are not asked about: name another "
            "file, such as the training records, or ask for fewer."
        )
    return drawn


def _comparable(question: str) -> str:
    return " ".join(question.lower().split()).rstrip(" ?")
