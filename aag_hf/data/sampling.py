"""Draws records without a bias from their order."""

import random
from collections.abc import Sequence
from typing import Any


def sample_records(records: Sequence[dict[str, Any]], most: int | None, seed: int) -> Sequence[dict[str, Any]]:
    """Draw at most `most` records and keep their order. ``None`` takes all."""
    if most is None or most >= len(records):
        return records
    draw = random.Random(seed)  # nosec B311 # which records are drawn is no secret
    return [records[place] for place in sorted(draw.sample(range(len(records)), most))]
