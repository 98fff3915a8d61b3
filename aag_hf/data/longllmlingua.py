"""Runs llmlingua 0.2.2 on current transformers: with a loaded model, and with keys and values as tuples."""

import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from aag_hf.data.ranking import most_tokens
from aag_hf.extras import optional

with optional():
    from llmlingua import PromptCompressor


class LongLLMLingua(PromptCompressor):
    """LongLLMLingua with a model and a tokenizer that are loaded already.

    Args:
        model: A causal language model, in evaluation mode.
        tokenizer: Its tokenizer.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
        # The parent's constructor would fetch a vocabulary from the network and load the model by name.
        self.model_name = model.config.name_or_path
        self.use_llmlingua2 = False
        self.retrieval_model = None
        self.retrieval_model_name = None
        self.open_api_config: dict[str, Any] = {}
        self.cache_bos_num = 10
        self.prefix_bos_num = 100
        self.oai_tokenizer = _TokenCounter(tokenizer)
        self.tokenizer = tokenizer
        self.model = _TupleCacheModel(model)
        self.device = model.device
        self.context_idxs: list[list[int]] = []
        self.max_position_embeddings = most_tokens(model) or sys.maxsize
        self.passage_losses: Sequence[float] = ()

    def compress_passages(
        self,
        passages: Sequence[str],
        passage_losses: Sequence[float],
        question: str,
        *,
        target_tokens: int,
        context_budget: int,
        iterative_size: int,
    ) -> str:
        """The passages' tokens that say most about the question, in the order of the passages' ranks.

        Args:
            passages: Texts, none blank.
            passage_losses: The loss of the question after each passage; the lowest ranks first.
            question: The question that the context should answer.
            target_tokens: How long the context should be.
            context_budget: Tokens beyond the target that whole passages may fill before tokens are dropped.
            iterative_size: Tokens per window. A shorter rest at the end is kept whole.
        """
        self.passage_losses = passage_losses
        self.context_idxs.clear()
        with torch.inference_mode():
            result = self.compress_prompt(
                list(passages),
                question=question,
                target_token=target_tokens,
                iterative_size=iterative_size,
                use_sentence_level_filter=False,
                context_budget=f"+{int(context_budget)}",
                condition_in_question="after",
                reorder_context="sort",
                dynamic_context_compression_ratio=0.4,
                condition_compare=True,
                concate_question=False,
                rank_method="longllmlingua",
            )
        return result["compressed_prompt"].strip()

    def get_rank_results(self, context: list[str], *_: Any) -> list[tuple[int, float]]:
        """Passages ordered by the given losses, the best first."""
        return sorted(enumerate(self.passage_losses), key=lambda ranked: ranked[1])

    def get_prefix_length(self, prefix: str, text: str) -> int:
        """Tokens of `prefix` in front of `text`; where a token straddles the border, those that end before it."""
        ids = self.tokenizer(prefix + text[:100], add_special_tokens=False)["input_ids"]
        count = max(self.get_token_length(prefix, False) - 3, 1)
        while count < len(ids) and len(self.tokenizer.decode(ids[: count + 1])) <= len(prefix):
            count += 1
        return count


class _TupleCacheModel:
    """A causal language model that takes and returns keys and values as llmlingua slices them: tuples of layers."""

    def __init__(self, model: PreTrainedModel):
        self._model = model

    def __call__(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, past_key_values: Any = None, use_cache: bool = True
    ) -> SimpleNamespace:
        # Without a configuration no layer drops keys outside its window, so positions stay indices.
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(past_key_values or ()):
            cache.update(keys, values, layer)
        output = self._model(
            input_ids=input_ids, attention_mask=attention_mask, past_key_values=cache, use_cache=use_cache
        )
        return SimpleNamespace(
            # Thresholds are ranks among losses, and losses from bfloat16 logits tie.
            logits=output.logits.float(),
            past_key_values=tuple((layer.keys, layer.values) for layer in cache.layers),
        )


class _TokenCounter:
    """Replaces OpenAI's tokenizer, which llmlingua uses only for the parent's report."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]
