"""Cross-fitting: the fold of the training data to which a record belongs."""

import hashlib
from typing import Any


def fold_of(record: dict[str, Any], folds: int) -> int:
    """The record's fold in ``range(folds)``. Records of one entity share a fold.

    Args:
        record: A record of the data contract.
        folds: The number of folds.
    """
    key = str(record.get("entity", record["id"]))
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % folds
