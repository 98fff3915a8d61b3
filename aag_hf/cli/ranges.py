"""The range of each option that is a number, by name, including the Trainer's options."""

import math
import reprlib

from aag_hf.errors import InputError

# More than any machine or data set has, and no more than the integers of libraries hold.
_MOST = 2**31 - 1
_COUNT = (1, _MOST, f"1 to {_MOST}")
_NOT_NEGATIVE = (0, _MOST, f"0 to {_MOST}")
_ABOVE_ZERO = (math.ulp(0.0), _MOST, f"more than 0, at most {_MOST}")
_SHARE = (0, 1, "0 to 1")
_SHARE_BELOW_ONE = (0, math.nextafter(1, 0), "0 or more and less than 1")
_SEED = (0, 2**32 - 1, f"0 to {2**32 - 1}")
# The least and the most, and the range in words.
RANGES: dict[str, tuple[float, float, str]] = {
    "batch_size": _COUNT,
    "max_batch_size": _COUNT,
    "port": (0, 65535, "0 to 65535"),
    "document_store_gb": _ABOVE_ZERO,
    "adapters_gb": _ABOVE_ZERO,
    "skip_bad": _NOT_NEGATIVE,
    "context_max_length": _COUNT,
    "answer_max_length": _COUNT,
    "prompt_max_length": _COUNT,
    "target_tokens": _COUNT,
    "threads": _COUNT,
    "top_k": _COUNT,
    "num_contexts": _COUNT,
    "num_answers": _COUNT,
    "passages": _COUNT,
    "folds": _COUNT,
    "r": _COUNT,
    "hidden_dim": _COUNT,
    "static_r": _COUNT,
    "adapter_passages": _COUNT,
    "rank": _COUNT,
    "feature_dim": _COUNT,
    "teacher_top_k": _COUNT,
    "per_device_train_batch_size": _COUNT,
    "per_device_eval_batch_size": _COUNT,
    "gradient_accumulation_steps": _COUNT,
    "eval_accumulation_steps": _COUNT,
    "torch_empty_cache_steps": _COUNT,
    "save_total_limit": _COUNT,
    "dataloader_prefetch_factor": _COUNT,
    "ddp_bucket_cap_mb": _COUNT,
    "ddp_timeout": _COUNT,
    "generation_max_length": _COUNT,
    "generation_num_beams": _COUNT,
    "max_samples": _COUNT,
    "max_train_samples": _COUNT,
    "max_eval_samples": _COUNT,
    "fold": _NOT_NEGATIVE,
    "shots": _NOT_NEGATIVE,
    "weight_decay": _NOT_NEGATIVE,
    "max_grad_norm": _NOT_NEGATIVE,
    "eval_delay": _NOT_NEGATIVE,
    "dataloader_num_workers": _NOT_NEGATIVE,
    "hidden_weight": _NOT_NEGATIVE,
    "attention_weight": _NOT_NEGATIVE,
    "teacher_learning_rate": _NOT_NEGATIVE,
    "neftune_noise_alpha": _NOT_NEGATIVE,
    "warmup_steps": _NOT_NEGATIVE,
    "min_relevance": _SHARE,
    "min_score": (-_MOST, 0, f"{-_MOST} to 0"),
    "added_documents": _SHARE,
    "lora_alpha": _ABOVE_ZERO,
    "learning_rate": _ABOVE_ZERO,
    "num_train_epochs": _ABOVE_ZERO,
    "adam_epsilon": _ABOVE_ZERO,
    "temperature": _ABOVE_ZERO,
    "logging_steps": _ABOVE_ZERO,
    "eval_steps": _ABOVE_ZERO,
    "save_steps": _ABOVE_ZERO,
    "layer_index_scale": _ABOVE_ZERO,
    "top_p": (math.ulp(0.0), 1, "more than 0, at most 1"),
    "feature_layer": _SHARE,
    "alpha": _SHARE,
    "teacher_beta": _SHARE,
    "lora_dropout": _SHARE_BELOW_ONE,
    "adam_beta1": _SHARE_BELOW_ONE,
    "adam_beta2": _SHARE_BELOW_ONE,
    "label_smoothing_factor": _SHARE_BELOW_ONE,
    "seed": _SEED,
    "data_seed": _SEED,
    # Minus one means "as many as the epochs have" and "no process of a launcher".
    "max_steps": (-1, _MOST, f"1 to {_MOST}, or -1 for as many as the epochs have"),
    "local_rank": (-1, _MOST, f"-1 to {_MOST}"),
}


def check_number(name: str, number: float) -> None:
    """Refuse a number that the option `name` does not take.

    Raises:
        InputError: Names the option, what was expected and what was found.
    """
    least, most, expected = RANGES.get(name, (-_MOST, _MOST, "a finite number"))
    # Every comparison with NaN is false. The Trainer takes 0 steps for "as many as the epochs have".
    if not least <= number <= most or (name, number) == ("max_steps", 0):
        raise InputError(f"{name} is {reprlib.repr(number)}: expected {expected}.")
