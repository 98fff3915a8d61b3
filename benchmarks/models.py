"""What the benchmarks run on: SmolLM2's shapes with random weights, and adapters of equal rank and targets."""

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from aag_hf import HyperLoraConfig
from aag_hf.awakening import share_weights
from aag_hf.hyperlora import memory_layers

RANK = 8
FEATURES = 64
VOCABULARY = 49152


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def base_model() -> PreTrainedModel:
    """SmolLM2-135M's shape, in bfloat16, frozen."""
    return _model(576, 1536, layers=30, heads=9, key_value_heads=3, vocabulary=VOCABULARY)


def wide_model() -> PreTrainedModel:
    """SmolLM2-1.7B's width: 4 of its 24 layers, and a sixth of its vocabulary so that the head keeps its share."""
    return _model(2048, 8192, layers=4, heads=32, key_value_heads=32, vocabulary=VOCABULARY // 6)


def _model(
    hidden: int, intermediate: int, layers: int, heads: int, key_value_heads: int, vocabulary: int
) -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        tie_word_embeddings=True,
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config).to(device(), torch.bfloat16).requires_grad_(False)


def with_static_lora(base: PreTrainedModel, rank: int = RANK) -> PeftModel:
    config = LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    return get_peft_model(share_weights(base), config)


def with_hyperlora(base: PreTrainedModel, static: bool = False) -> PeftModel:
    config = HyperLoraConfig(
        task_type="CAUSAL_LM",
        r=RANK,
        lora_alpha=2 * RANK,
        feature_dim=FEATURES,
        static=static,
        target_modules="all-linear",
    )
    return get_peft_model(share_weights(base), config)


def with_memory(base: PreTrainedModel) -> PeftModel:
    config = HyperLoraConfig(
        task_type="CAUSAL_LM",
        hypernetwork="memory",
        r=64,
        feature_dim=base.config.hidden_size,
        hidden_dim=128,
        static=True,
        static_r=8,
        target_modules=memory_layers(base),
    )
    return get_peft_model(share_weights(base), config)


def batch(rows: int, tokens: int, answer_tokens: int = 6) -> dict[str, torch.Tensor]:
    """Random prompts with answers at their ends, and features."""
    torch.manual_seed(1)
    ids = torch.randint(10, VOCABULARY // 6, (rows, tokens), device=device())
    labels = ids.clone()
    labels[:, :-answer_tokens] = -100
    features = torch.randn(rows, FEATURES, device=device())
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels, "features": features}


def without_features(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in inputs.items() if name != "features"}
