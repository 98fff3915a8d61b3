"""The error for records that cannot be used, importable from the data package."""

from aag_hf.errors import InputError

__all__ = ["InputError"]
