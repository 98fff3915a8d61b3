import gc
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Also in the programs that tests start: two workers share the machine, and tiny models gain nothing from more threads.
os.environ["OMP_NUM_THREADS"] = "1"

import torch

if not torch.cuda.is_available():
    # Triton reads it while it is imported, which transformers does: its kernels are tested in its interpreter.
    os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

TESTS = Path(__file__).resolve().parent
# The folders and files whose tests start other programs, and those that train or attack for long.
LAUNCHERS = {"launchers", "test_extras.py", "test_layout.py", "test_registration.py"}
# fmt: off
SLOW = {
    "benchmarks", "cli", "demo", "hub", "reliability", "serving", "trainers", "test_adapter_scope.py",
    "test_aggregation.py", "test_architectures.py", "test_docs.py", "test_embedded.py", "test_examples.py",
    "test_merging.py", "test_model.py", "test_self_contained.py", "test_triton_path.py",
}
# fmt: on
# The gate has fifteen minutes: these files, and single tests marked so, have targets of their own in the Makefile.
BY_HAND = {"test_engines.py", "test_compile_kernels.py", "test_vllm.py", "test_bare_environment.py"}


def pytest_collection_modifyitems(items):
    """Mark what `make test-fast` and `make test` leave out."""
    for item in items:
        places = {item.path.relative_to(TESTS).parts[0], item.path.name}
        for mark, marked in (("launchers", LAUNCHERS), ("slow", SLOW), ("by_hand", BY_HAND)):
            if places & marked:
                item.add_marker(mark)


def pytest_collection_finish():
    """Leave all that is imported out of garbage collections: each trainer asks for several, of half a second each."""
    gc.collect()
    gc.freeze()


CHARACTERS = ["<pad>", "</s>", "<unk>", *pre_tokenizers.ByteLevel.alphabet()]


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """One token a byte; pad, end and unknown apart."""
    vocabulary = {token: i for i, token in enumerate([*CHARACTERS[:3], *sorted(CHARACTERS[3:])])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


@pytest.fixture(scope="session")
def tiny_llama_dir(tmp_path_factory, tiny_tokenizer):
    """A random Llama with grouped-query attention and its tokenizer, as `from_pretrained` finds them."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tiny_tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=1,
        )
    )
    directory = tmp_path_factory.mktemp("models") / "llama"
    model.save_pretrained(directory)
    tiny_tokenizer.save_pretrained(directory)
    return str(directory)


@pytest.fixture(scope="session")
def tiny_t5_dir(tmp_path_factory, tiny_tokenizer):
    """A random T5 v1.0 and its tokenizer."""
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(tiny_tokenizer),
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            decoder_start_token_id=0,
            pad_token_id=0,
            eos_token_id=1,
            dropout_rate=0.0,
        )
    )
    directory = tmp_path_factory.mktemp("models") / "t5"
    model.save_pretrained(directory)
    tiny_tokenizer.save_pretrained(directory)
    return str(directory)
