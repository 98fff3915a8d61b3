"""Records, retrieval, compression and the embedded data set; each part is imported when it is first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aag_hf.data.compression import ContextCompressor
    from aag_hf.data.countries import load_countries
    from aag_hf.data.made import made_countries
    from aag_hf.data.mapped import open_records
    from aag_hf.data.records import iter_records, read_records, write_records
    from aag_hf.data.streams import RecordStream
    from aag_hf.data.things import made_things

_HOMES = {
    "read_records": "aag_hf.data.records",
    "iter_records": "aag_hf.data.records",
    "open_records": "aag_hf.data.mapped",
    "RecordStream": "aag_hf.data.streams",
    "write_records": "aag_hf.data.records",
    "ContextCompressor": "aag_hf.data.compression",
    "load_countries": "aag_hf.data.countries",
    "made_countries": "aag_hf.data.made",
    "made_things": "aag_hf.data.things",
}

__all__ = [
    "read_records",
    "iter_records",
    "open_records",
    "RecordStream",
    "write_records",
    "ContextCompressor",
    "load_countries",
    "made_countries",
    "made_things",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
