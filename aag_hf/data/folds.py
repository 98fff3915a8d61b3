"""Cross-fitting: which part of the training data a record belongs to."""

import hashlib
from typing import Any


def fold_of(record: dict[str, Any], folds: int) -> int:
    """The record's fold in ``range(folds)``, by its entity where it has one, so that no entity stands in two folds.

    Args:
        record: A record of the data contract.
        folds: How many folds.
    """
    key = str(record.get("entity", record["id"]))
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % folds
