"""A document's adapter: what it costs to make, to ask, and to learn to make. `python benchmarks/document.py`"""

from functools import partial

import models
import torch
from measure import compare
from peft import LoraConfig, get_peft_model
from torch import nn
from train_step import step

from aag_hf import DocumentEncoder
from aag_hf.awakening import share_weights
from aag_hf.cli.tiny import make_tokenizer
from aag_hf.hyperlora import memory_layers

DOCUMENT_TOKENS, PASSAGE_TOKENS, QUESTION_TOKENS, ANSWER_TOKENS = 128, 100, 12, 8
FORWARD, PASSAGES, STATIC = "one forward pass of the documents", "10 passages in the prompt", "static LoRA"


def random_document(tokens: int) -> str:
    """A text of about as many tokens of the benchmark's tokenizer."""
    tokenizer = make_tokenizer()
    words = "The capital of Nuvaria is Brelmont and its people are called Nuvari. " * tokens
    return tokenizer.decode(tokenizer(words)["input_ids"][:tokens])


@torch.no_grad()
def read(base: nn.Module, encoder: DocumentEncoder, texts: list[str]) -> None:
    ids = torch.tensor(encoder.tokenizer(texts)["input_ids"], device=models.device())
    base.base_model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)


def answer(model: nn.Module, prompt_tokens: int, **adapter: object) -> None:
    ids = torch.full((1, prompt_tokens), 100, device=models.device())
    exactly = {"max_new_tokens": ANSWER_TOKENS, "min_new_tokens": ANSWER_TOKENS, "do_sample": False, "pad_token_id": 0}
    model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **exactly, **adapter)


def main() -> None:
    base = models.base_model().eval()
    memory_reader = models.with_memory(base).eval()
    same_layers = LoraConfig(task_type="CAUSAL_LM", r=8, target_modules=memory_layers(base))
    static = get_peft_model(share_weights(base), same_layers).eval()
    encoder = DocumentEncoder.from_backbone(base, make_tokenizer()).to(models.device())
    text = random_document(DOCUMENT_TOKENS)
    encoder.fit_statistics([text] * 2)
    for documents in (1, 8):
        cases = {
            FORWARD: partial(read, base, encoder, [text] * documents),
            "memorize": lambda count=documents: memory_reader.memorize(encoder.encode([text] * count)),
        }
        setting = f"{documents} of {DOCUMENT_TOKENS} tokens"
        compare("making a document's adapter", cases, FORWARD, setting=setting)
    memory = memory_reader.memorize(encoder.encode([text]))
    print(f"one memory takes {memory.tensor.nbytes / 1000:,.0f} kB")
    cases = {
        PASSAGES: partial(answer, static, 10 * PASSAGE_TOKENS + QUESTION_TOKENS),
        "closed book, static LoRA": partial(answer, static, QUESTION_TOKENS),
        "document's adapter": partial(answer, memory_reader, QUESTION_TOKENS, memory=memory),
        "document's adapter, merged": partial(
            answer, memory_reader, QUESTION_TOKENS, memory=memory, merge_adapter=True
        ),
        "closed book, frozen base": partial(answer, base, QUESTION_TOKENS),
    }
    setting = f"tokens: question {QUESTION_TOKENS}, passage {PASSAGE_TOKENS}, answer {ANSWER_TOKENS}"
    compare("a question about a document", cases, PASSAGES, setting=setting)
    inputs = models.without_features(models.batch(16, 32))
    documents = encoder.encode([text] * 16)
    cases = {
        "static LoRA, all layers": partial(step, models.with_static_lora(base), inputs),
        STATIC: partial(step, static.train(), inputs),
        "document's adapter": partial(step, memory_reader.train(), inputs | {"documents": documents}),
    }
    compare(
        "training step of a document's adapter",
        cases,
        STATIC,
        setting=f"16 × 32 tokens, documents of {DOCUMENT_TOKENS}",
    )


if __name__ == "__main__":
    main()
