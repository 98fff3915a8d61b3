"""From records to decoded text, in batches of similar length."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn
from transformers import LogitsProcessorList, PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from aag_hf.awakening.answer_scores import TokenLogProbs, answer_scores, end_tokens
from aag_hf.collators.prompts import Cuts
from aag_hf.errors import InputError
from aag_hf.hyperlora import DocumentMemory
from aag_hf.questions.states import in_evaluation

# Settings that a checkpoint's own generation_config may carry. Greedy decoding uses none of them unless asked to.
GREEDY: dict[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "num_return_sequences": 1,
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": None,
    "guidance_scale": None,
    "penalty_alpha": None,
    "bad_words_ids": None,
    "sequence_bias": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "exponential_decay_length_penalty": None,
    "watermarking_config": None,
    "max_time": None,
    "stop_strings": None,
    "prompt_lookup_num_tokens": None,
    # Without sampling they only cause one warning each.
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "min_p": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
}
# What would give several texts for a question, or something else than texts.
ONE_TEXT: dict[str, Any] = {"num_return_sequences": 1, "return_dict_in_generate": False}


class Decoded(NamedTuple):
    """Decoded texts.

    Attributes:
        texts: One per record.
        scores: The mean log-probability of the first line of each; ``None`` for beams and assisted decoding.
        prompt_tokens: The number of prompt tokens read, padding not counted.
    """

    texts: list[str]
    scores: list[float] | None
    prompt_tokens: int


class PromptCollator(Protocol):
    """A collator that can make prompts without their targets."""

    tokenizer: PreTrainedTokenizerBase
    is_encoder_decoder: bool
    cut: Cuts

    def generation_inputs(self, records: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]: ...


@torch.no_grad()
def generate_texts(
    model: nn.Module,
    collator: PromptCollator,
    records: Sequence[dict[str, Any]],
    *,
    max_new_tokens: int,
    batch_size: int = 32,
    on_batch: Callable[[int], None] | None = None,
    memory: DocumentMemory | None = None,
    on_tokens: Callable[[Sequence[int], Sequence[int]], None] | None = None,
    **generation_options: Any,
) -> Decoded:
    """Decode one text for each record, greedily unless `generation_options` say otherwise.

    Penalties, beams and sampling that the model's own `generation_config` asks for do not apply.

    Args:
        model: A causal or encoder-decoder model, wrapped or not.
        collator: Makes the prompts.
        records: Records of the data contract.
        max_new_tokens: The most tokens of a text.
        batch_size: Records per call of `generate`.
        on_batch: Called with the number of records done after each batch.
        memory: One memory per record, for an adapter that is made from documents.
        on_tokens: Called after each step with the numbers of the records that are decoded together, and the token of
            each. A text that has ended goes on with padding. Not for beams.
        **generation_options: Passed on to `generate`.

    Returns:
        What was decoded, in the order of `records`.

    Raises:
        InputError: `generation_options` ask for something else than one text per record.
    """
    for name, only in ONE_TEXT.items():
        if generation_options.get(name, only) != only:
            raise InputError(f"{name} is {generation_options[name]}: only {only} gives one text for each question.")
    tokenizer = collator.tokenizer
    options = {**GREEDY, "pad_token_id": tokenizer.pad_token_id, **generation_options}
    order = sorted(range(len(records)), key=lambda i: _length(records[i]))
    device = next(model.parameters()).device
    texts: list[str] = [""] * len(records)
    # Beams change places, and drafts are checked several tokens at a time.
    one_by_one = options["num_beams"] == 1 and not options["prompt_lookup_num_tokens"]
    scores = [0.0] * len(records) if one_by_one and options.get("assistant_model") is None else None
    ends = end_tokens(model, tokenizer)
    processors = list(options.pop("logits_processor", None) or [])
    prompt_tokens = 0
    with in_evaluation(model):
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            inputs = {n: v.to(device) for n, v in collator.generation_inputs([records[i] for i in rows]).items()}
            prompt_tokens += int(inputs["attention_mask"].sum())
            inputs |= {} if memory is None else {"memory": memory[rows].to(device)}
            log_probs = TokenLogProbs()
            watching = LogitsProcessorList(processors if scores is None else [*processors, log_probs])
            if on_tokens is not None:
                options["streamer"] = _Steps(rows, on_tokens)
            with contiguous_head(model):
                ids = model.generate(**inputs, max_new_tokens=max_new_tokens, logits_processor=watching, **options)
            # An encoder-decoder model's ids begin with the token that starts its decoder.
            ids = ids[:, 1 if collator.is_encoder_decoder else inputs["input_ids"].shape[1] :]
            if scores is not None:
                for row, score in zip(rows, answer_scores(ids, log_probs.of(ids), tokenizer, ends)):
                    scores[row] = score
            for row, text in zip(rows, tokenizer.batch_decode(ids, skip_special_tokens=True)):
                texts[row] = text.strip()
            if on_batch is not None:
                on_batch(len(rows))
    if collator.cut.told():
        warnings.warn(f"To fit their limits, {collator.cut.told()}.", stacklevel=2)
    return Decoded(texts, scores, prompt_tokens)


class _Steps(BaseStreamer):
    """Hands on the token of each row, which transformers' own streamers do for one row only."""

    def __init__(self, rows: Sequence[int], on_tokens: Callable[[Sequence[int], Sequence[int]], None]):
        self.rows, self.on_tokens = rows, on_tokens

    def put(self, value: torch.Tensor) -> None:
        # The prompts come first, as a matrix.
        if value.dim() == 1:
            self.on_tokens(self.rows, value.tolist())

    def end(self) -> None:
        pass


def _length(record: dict[str, Any]) -> int:
    return len(record["question"]) + len(record.get("generated_context") or "")


@contextmanager
def contiguous_head(model: nn.Module) -> Iterator[None]:
    """Give the model's head contiguous states while the scope lasts.

    After a prompt, transformers hands the head the last position of each row, which is not contiguous. If the head's
    weights are not trained, torch's product then copies them once per row: gigabytes for 64 rows of a small model.
    """

    def contiguous(_: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        states, *others = args
        return (states.contiguous(), *others)

    head = model.get_output_embeddings()
    if head is None:
        yield
        return
    handle = head.register_forward_pre_hook(contiguous)
    try:
        yield
    finally:
        handle.remove()


def first_line(text: str) -> str:
    """A reader's answer, which is the first line that it writes."""
    return text.strip().partition("\n")[0].strip()
