"""Loading saved models: their folder, configuration, base model and parts."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from peft import PeftConfig, PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from aag_hf.awakening.configuration import AwakeningConfig
from aag_hf.awakening.quantization import prepare_quantized
from aag_hf.awakening.sharing import share_weights
from aag_hf.data.embedded import resolve_model
from aag_hf.errors import InputError, loading
from aag_hf.fid import FiDT5Config, FiDT5ForConditionalGeneration
from aag_hf.hyperlora.config import HYPERLORA


def saved_directory(name_or_path: str | Path, revision: str | None = None, token: str | None = None) -> Path:
    """The folder of a saved [`AwakeningModel`], fetched if it is on the Hub.

    Raises:
        InputError: There is none, or it holds no such model.
    """
    directory = Path(name_or_path)
    if not directory.is_dir():
        try:
            directory = Path(snapshot_download(str(name_or_path), revision=revision, token=token))
        except (HFValidationError, OSError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"{name_or_path}: neither a folder here nor a model that the Hub gives: {reason}"
            ) from None
    if not (directory / "config.json").is_file() or not (directory / "reader").is_dir():
        raise InputError(f"{directory}: no config.json and reader/ in it: expected what AwakeningModel saved.")
    return directory


def load_language_model(name_or_path: str, fid: bool = False, **kwargs: Any) -> PreTrainedModel:
    """A causal or encoder-decoder language model, whichever the checkpoint is; ``"embedded"`` for the embedded one.

    Args:
        name_or_path: A directory or Hub id.
        fid: As a Fusion-in-Decoder reader.
        **kwargs: Passed on to `from_pretrained`.

    Raises:
        InputError: `fid` for another model than T5, or a checkpoint that lacks weights of the model.
    """
    name = resolve_model(name_or_path)
    # Left open, transformers would ask on the terminal whether code from the model's folder may run.
    kwargs = {"trust_remote_code": False} | kwargs
    with loading(name_or_path):
        config = AutoConfig.from_pretrained(name, trust_remote_code=kwargs["trust_remote_code"])
        if fid:
            if config.model_type not in ("t5", FiDT5Config.model_type):
                raise InputError(f"{name_or_path}: is a {config.model_type} model: fid needs a T5.")
            return FiDT5ForConditionalGeneration.from_pretrained(name, **kwargs)
        auto_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model, found = auto_class.from_pretrained(name, output_loading_info=True, **kwargs)
    if found["missing_keys"]:
        lacking = sorted(found["missing_keys"])
        raise InputError(
            f"{name_or_path}: lacks {len(lacking)} weights, such as {lacking[0]}, which would stay random: expected a "
            f"whole {type(model).__name__}."
        )
    return prepare_quantized(model)


def load_tokenizer(name_or_path: str | Path) -> PreTrainedTokenizerBase:
    """A saved tokenizer, which runs no code of its folder.

    Raises:
        InputError: It does not load.
    """
    with loading(name_or_path):
        return AutoTokenizer.from_pretrained(resolve_model(str(name_or_path)), trust_remote_code=False)


def saved_config(directory: str | Path) -> AwakeningConfig:
    """The configuration of a saved [`AwakeningModel`].

    Raises:
        InputError: It does not load.
    """
    with loading(directory):
        return AwakeningConfig.from_pretrained(directory)


def load_part(
    directory: Path, base: PreTrainedModel, merge: bool = False, **kwargs: Any
) -> PreTrainedModel | PeftModel:
    """A reader or generator: an adapter over a view of `base`, or a whole model.

    Args:
        directory: Where it was saved.
        base: The base model.
        merge: Merge a plain LoRA into a copy of `base`: it decodes as fast as the base, for the memory of one more.
        **kwargs: Passed on to `from_pretrained` of a whole model.

    Raises:
        InputError: The adapter was trained on another base model.
    """
    if not (directory / "adapter_config.json").is_file():
        return load_language_model(str(directory), **kwargs)
    # A plain adapter in single precision would have every layer convert its input and output at every token; a
    # hypernetwork runs once per question and keeps its precision.
    with loading(directory):
        single_precision = merge or PeftConfig.from_pretrained(directory).peft_type == HYPERLORA
    over = copy.deepcopy(base) if merge else share_weights(base)
    with loading(directory):
        try:
            model = PeftModel.from_pretrained(over, directory, autocast_adapter_dtype=single_precision)
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"{directory}: this adapter does not fit {base.name_or_path or type(base).__name__}: load the base "
                f"model it was trained on.\n{error}"
            ) from error
        _check_adapter_file(model, directory / "adapter_model.safetensors")
        beside = sorted(folder.parent for folder in directory.glob("*/adapter_config.json"))
        for folder in beside:
            model.load_adapter(str(folder), folder.name, autocast_adapter_dtype=single_precision)
        if beside:
            model.base_model.set_adapter(["default", *(folder.name for folder in beside)], inference_mode=True)
    return model.merge_and_unload() if merge else model


def _check_adapter_file(model: PeftModel, file: Path) -> None:
    """Refuse an adapter's file without all of its weights, which PEFT leaves random with no more than a warning."""
    expected = get_peft_model_state_dict(model)
    if file.is_file():
        with safe_open(file, "pt") as tensors:
            lacking = sorted(expected.keys() - tensors.keys())
        if lacking:
            raise InputError(f"{file}: lacks {len(lacking)} weights, such as {lacking[0]}: save the adapter again.")
    broken = sorted(name for name, tensor in expected.items() if not tensor.isfinite().all())
    if broken:
        raise InputError(f"{file}: {broken[0]} has NaN or infinity: train the adapter again.")


def is_encoder_decoder(model: nn.Module) -> bool:
    """Whether a model, wrapped by PEFT or not, has an encoder and a decoder."""
    return bool(model.config.is_encoder_decoder)
