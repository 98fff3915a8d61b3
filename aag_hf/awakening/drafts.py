"""Several texts for each prompt: the first is the likeliest at every step, the others are sampled."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import LogitsProcessor, LogitsProcessorList

from aag_hf.awakening.answer_scores import TokenLogProbs, answer_scores, end_tokens, text_scores
from aag_hf.awakening.decoding import GREEDY, PromptCollator, contiguous_head
from aag_hf.errors import InputError
from aag_hf.hyperlora import DocumentMemory
from aag_hf.questions.states import in_evaluation

# The tokens among which one is drawn; sorting a whole vocabulary at every step takes longer than small models do.
_LIKELIEST = 256


@dataclass(kw_only=True)
class DrawingOptions:
    """How several contexts are written for each question."""

    num_contexts: int = field(
        default=1, metadata={"help": "Contexts per question: the first is written greedily, the others are sampled."}
    )
    temperature: float = field(default=1.0, metadata={"help": "Sampling temperature; below 1 the samples differ less."})
    top_p: float = field(default=0.95, metadata={"help": "Samples take the likeliest tokens, up to this probability."})
    seed: int = field(
        default=29,
        metadata={"help": "Seed of the samples. The question is mixed in, so that each question has draws of its own."},
    )


class Draft(NamedTuple):
    """A text that a model wrote.

    Attributes:
        text: The text.
        score: The mean log-probability of its tokens, also where it was sampled at another temperature.
    """

    text: str
    score: float


@torch.no_grad()
def draw_texts(
    model: nn.Module,
    collator: PromptCollator,
    records: Sequence[dict[str, Any]],
    number: int,
    options: DrawingOptions,
    *,
    max_new_tokens: int,
    batch_size: int = 32,
    memory: DocumentMemory | None = None,
    lines: bool = False,
) -> list[list[Draft]]:
    """Write `number` texts for each record, the greedy one first.

    A prompt is read once, and its texts are decoded side by side. What is drawn for a question depends on the seed and
    the question, and the first of many drafts are those of few. Beside other questions a model's numbers differ in
    their last digits, as in greedy decoding, so that now and then another token may be drawn.

    Args:
        model: A causal or encoder-decoder model, wrapped or not.
        collator: Makes the prompts.
        records: Records of the data contract.
        number: Texts per record, at least 1.
        options: How they are drawn.
        max_new_tokens: The most tokens of a text.
        batch_size: Texts per call of `generate`, if not more are drawn for one record.
        memory: One memory per record, for an adapter that is made from documents.
        lines: Score the first lines, as of answers, instead of whole texts.

    Raises:
        InputError: `number`, the temperature or `top_p` is out of range.
    """
    _check(number, options)
    tokenizer, device = collator.tokenizer, next(model.parameters()).device
    ends = end_tokens(model, tokenizer)
    settings = GREEDY | {"do_sample": True, "top_k": 0, "num_return_sequences": number}
    order = sorted(range(len(records)), key=lambda i: len(records[i]["question"]))
    together = max(1, batch_size // number)
    drawn: list[list[Draft]] = [[] for _ in records]
    with in_evaluation(model):
        for start in range(0, len(order), together):
            rows = order[start : start + together]
            inputs = {n: v.to(device) for n, v in collator.generation_inputs([records[i] for i in rows]).items()}
            inputs |= {} if memory is None else {"memory": memory[rows].to(device)}
            # An encoder reads a prompt once without further ado.
            read = {} if collator.is_encoder_decoder else {"past_key_values": _read_once(model, inputs, number)}
            log_probs = TokenLogProbs()
            seeds = [_seed(options.seed, records[i]["question"]) for i in rows]
            sampler = _Sampler(seeds, number, max_new_tokens, options)
            with contiguous_head(model):
                ids = model.generate(
                    **inputs,
                    **read,
                    **settings,
                    max_new_tokens=max_new_tokens,
                    pad_token_id=tokenizer.pad_token_id,
                    logits_processor=LogitsProcessorList([log_probs, sampler]),
                )
            ids = ids[:, 1 if collator.is_encoder_decoder else inputs["input_ids"].shape[1] :]
            scored = log_probs.of(ids)
            scores = answer_scores(ids, scored, tokenizer, ends) if lines else text_scores(ids, scored, ends)
            texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
            for place, (text, score) in enumerate(zip(texts, scores)):
                drawn[rows[place // number]].append(Draft(text.strip(), score))
    return drawn


def without_duplicates(drafts: Sequence[Draft]) -> list[Draft]:
    """Each text once, in its first place."""
    first: dict[str, Draft] = {}
    for draft in drafts:
        first.setdefault(draft.text, draft)
    return list(first.values())


class _Sampler(LogitsProcessor):
    """Leaves one token of each row: in the first row of a question the likeliest, in the others one that is drawn.

    The random numbers of a question come from a generator of its own, so that its neighbours change nothing.
    """

    def __init__(self, seeds: Sequence[int], number: int, steps: int, options: DrawingOptions):
        drawn = [torch.rand(number, steps, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        self.uniform = torch.stack(drawn)
        # Nothing is below 0: the first token in the order of probability.
        self.uniform[:, 0] = 0
        self.uniform = self.uniform.flatten(0, 1)
        self.options = options
        self.step = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Zero for the token that is taken, minus infinity for all others."""
        uniform = self.uniform[:, self.step].to(scores.device)
        self.step += 1
        chosen = sample(scores.float(), uniform, self.options.temperature, self.options.top_p)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen[:, None], 0)


def sample(logits: Tensor, uniform: Tensor, temperature: float, top_p: float) -> Tensor:
    """The token at which the cumulative probability, from the likeliest token on, passes a random number.

    Args:
        logits: ``(rows, vocabulary)``.
        uniform: ``(rows,)`` in [0, 1): the number, as a share of the probability of all tokens that can be drawn.
        temperature: Divides the logits.
        top_p: Only the likeliest tokens that together have this probability can be drawn; the last of them makes it
            full.

    Returns:
        ``(rows,)``, token ids.
    """
    logits = logits / temperature
    likeliest = logits.topk(min(_LIKELIEST, logits.shape[1]))
    passed = (likeliest.values - logits.logsumexp(1, keepdim=True)).exp().cumsum(1)
    last = (passed < top_p).sum(1, keepdim=True).clamp(max=passed.shape[1] - 1)
    place = torch.searchsorted(passed, uniform[:, None] * passed.gather(1, last), right=True)
    return likeliest.indices.gather(1, place.clamp(max=last))[:, 0]


def _read_once(model: nn.Module, inputs: dict[str, Any], copies: int) -> Any:
    """The cache of the prompts without their last tokens, a copy for each text; ``None`` if nothing is left of them."""
    if inputs["input_ids"].shape[1] < 2:
        return None
    mask = inputs["attention_mask"][:, :-1]
    beginning = inputs | {"input_ids": inputs["input_ids"][:, :-1], "attention_mask": mask}
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = model(**beginning, position_ids=positions, use_cache=True, logits_to_keep=1).past_key_values
    cache.batch_repeat_interleave(copies)
    return cache


def _seed(seed: int, question: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {question}".encode()).digest()[:7], "big")


def _check(number: int, options: DrawingOptions) -> None:
    if number < 1:
        raise InputError(f"{number} texts were asked for: expected at least 1.")
    if not options.temperature > 0:
        raise InputError(f"temperature is {options.temperature}: expected more than 0.")
    if not 0 < options.top_p <= 1:
        raise InputError(f"top_p is {options.top_p}: expected more than 0, at most 1.")
