"""The composed model: context generator, question encoder and reader."""

from aag_hf.awakening.configuration import AwakeningConfig
from aag_hf.awakening.model import AwakeningModel, AwakeningOutput
from aag_hf.awakening.pipeline import AwakeningPipeline
from aag_hf.awakening.sharing import share_weights

__all__ = ["AwakeningConfig", "AwakeningModel", "AwakeningOutput", "AwakeningPipeline", "share_weights"]
