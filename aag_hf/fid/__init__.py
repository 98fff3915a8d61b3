"""Fusion-in-Decoder T5, known to the Auto classes once this package is imported."""

from transformers import AutoConfig, AutoModelForSeq2SeqLM

from aag_hf.fid.configuration import FiDT5Config
from aag_hf.fid.convert import convert_fid_checkpoint
from aag_hf.fid.modeling import FiDT5Encoder, FiDT5ForConditionalGeneration

AutoConfig.register(FiDT5Config.model_type, FiDT5Config)
AutoModelForSeq2SeqLM.register(FiDT5Config, FiDT5ForConditionalGeneration)

__all__ = ["FiDT5Config", "FiDT5Encoder", "FiDT5ForConditionalGeneration", "convert_fid_checkpoint"]
