"""What the benchmarks run on: SmolLM2-135M's shape with random weights, and adapters of equal rank and targets."""

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from aag_hf import HyperLoraConfig
from aag_hf.awakening import share_weights

RANK = 8
FEATURES = 64
VOCABULARY = 49152


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def base_model() -> PreTrainedModel:
    """SmolLM2-135M's shape, in bfloat16, frozen."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
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


def batch(rows: int, tokens: int, answer_tokens: int = 6) -> dict[str, torch.Tensor]:
    """Random prompts with answers at their ends, and features."""
    torch.manual_seed(1)
    ids = torch.randint(10, VOCABULARY, (rows, tokens), device=device())
    labels = ids.clone()
    labels[:, :-answer_tokens] = -100
    features = torch.randn(rows, FEATURES, device=device())
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels, "features": features}


def without_features(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in inputs.items() if name != "features"}
