"""The composed model: context generator, encoders and reader. Each part is imported when it is first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from aag_hf.awakening.configuration import AwakeningConfig

if TYPE_CHECKING:
    from aag_hf.awakening.choosing import memories_for
    from aag_hf.awakening.model import AwakeningModel, AwakeningOutput
    from aag_hf.awakening.pipeline import AwakeningPipeline
    from aag_hf.awakening.sharing import share_weights

_HOMES = {
    "AwakeningModel": "aag_hf.awakening.model",
    "AwakeningOutput": "aag_hf.awakening.model",
    "AwakeningPipeline": "aag_hf.awakening.pipeline",
    "memories_for": "aag_hf.awakening.choosing",
    "share_weights": "aag_hf.awakening.sharing",
}

__all__ = [
    "AwakeningConfig",
    "AwakeningModel",
    "AwakeningOutput",
    "AwakeningPipeline",
    "memories_for",
    "share_weights",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
