"""Servers over tiny random models, each asked through a port of its own."""

import threading
from contextlib import contextmanager
from functools import partial

import httpx2
import pytest
import torch
import uvicorn
from peft import get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from aag_hf import AwakeningConfig, AwakeningModel, DocumentEncoder, HyperLoraConfig, QuestionEncoder
from aag_hf.awakening import share_weights
from aag_hf.data.embedded import resolve_model
from aag_hf.hyperlora import memory_layers
from aag_hf.serving.answering import Answerer
from aag_hf.serving.app import make_app
from aag_hf.serving.batching import Batcher

TEXTS = [f"The capital of {place} is {place * 3}." for place in "ABCDEFGH"]
QUESTIONS = [f"What is the {noun} of {place}?" for noun in ("capital", "money", "name") for place in "ABCD"]


def random_memory_reader(base_directory, tokenizer, lora_alpha=64):
    """Its answers differ from document to document."""
    base = AutoModelForCausalLM.from_pretrained(base_directory)
    torch.manual_seed(3)
    adapter = HyperLoraConfig(
        task_type="CAUSAL_LM",
        hypernetwork="memory",
        r=4,
        lora_alpha=lora_alpha,
        feature_dim=base.config.hidden_size,
        hidden_dim=16,
        target_modules=memory_layers(base),
        init_weights=False,
    )
    encoder = DocumentEncoder.from_backbone(base, tokenizer).fit_statistics(TEXTS)
    return AwakeningModel(
        AwakeningConfig(base_directory, answer_max_length=8, adapter_context="passages"),
        get_peft_model(share_weights(base), adapter),
        tokenizer,
        document_encoder=encoder,
    ).eval()


def random_question_reader(base_directory, tokenizer):
    """Its adapters are made from questions."""
    base = AutoModelForCausalLM.from_pretrained(base_directory)
    torch.manual_seed(1)
    adapter = HyperLoraConfig(
        task_type="CAUSAL_LM", feature_dim=8, r=2, target_modules=["q_proj", "down_proj"], init_weights=False
    )
    encoder = QuestionEncoder.from_backbone(base, tokenizer, feature_dim=8).fit_whitening(QUESTIONS)
    config = AwakeningConfig(base_directory, answer_max_length=8)
    return AwakeningModel(config, get_peft_model(share_weights(base), adapter), tokenizer, encoder).eval()


@pytest.fixture(scope="session")
def memory_reader(tiny_llama_dir, tiny_tokenizer):
    return random_memory_reader(tiny_llama_dir, tiny_tokenizer)


@pytest.fixture(scope="session")
def question_reader(tiny_llama_dir, tiny_tokenizer):
    return random_question_reader(tiny_llama_dir, tiny_tokenizer)


@pytest.fixture(scope="session")
def embedded_readers():
    """Of SmolLM2-135M: one that reads documents, one that reads questions."""
    directory = resolve_model("embedded")
    tokenizer = AutoTokenizer.from_pretrained(directory)
    return random_memory_reader(directory, tokenizer, lora_alpha=4), random_question_reader(directory, tokenizer)


@contextmanager
def _running(app):
    """The address of a server of its own."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def _served(model, max_batch_size=8, max_document_bytes=10**9, work=None, **options):
    """A client of a running server; `work` may stand around the answerer's."""
    answerer = Answerer(model)
    with (
        Batcher(partial(work, answerer.work) if work else answerer.work, max_batch_size) as batcher,
        _running(make_app(answerer, batcher, "reader", max_document_bytes, **options)) as address,
        httpx2.Client(base_url=address, timeout=60) as client,
    ):
        yield client


@pytest.fixture
def served():
    return _served


@pytest.fixture
def running():
    return _running
