"""The error of records that cannot be used, where readers of data look for it."""

from aag_hf.errors import InputError

__all__ = ["InputError"]
