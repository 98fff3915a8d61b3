"""A tiny random language model, to try every stage in seconds."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from aag_hf.cli.stage import is_finished, new_directory

SPECIAL = ["<pad>", "</s>", "<unk>"]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one token per byte."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    pad, end, unknown = SPECIAL
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=pad, eos_token=end, unk_token=unknown)


def make_tiny_model(directory: Path, seed: int) -> Path:
    """A random two-layer Llama over bytes and its tokenizer, saved in `directory`."""
    settings = {"seed": seed}
    if is_finished(directory, settings):
        return directory
    tokenizer = make_tokenizer()
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=1,
        )
    )
    with new_directory(directory, settings) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
    return directory
