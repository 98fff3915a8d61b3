"""Short strings that identify a model or a tokenizer by its content, not by its name."""

import hashlib
import json

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

LENGTH = 16


def weights_fingerprint(model: nn.Module) -> str:
    """Equal for models whose weights and buffers have the same names, types, shapes and values.

    Args:
        model: Any model, whose tensors are in memory.
    """
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:LENGTH]


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Equal for tokenizers that give the same tokens.

    Args:
        tokenizer: A fast tokenizer.
    """
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    # It also keeps the settings of the last call.
    described.update(truncation=None, padding=None, eos_token_id=tokenizer.eos_token_id)
    return text_fingerprint(described)


def text_fingerprint(value: object) -> str:
    """Equal for equal JSON values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:LENGTH]
