"""The per-sample LoRA matmul as the formula reads, one sample at a time; what every other form is tested against."""

from itertools import pairwise

import torch


def hyper_lora_naive(
    x: torch.Tensor,
    weight: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    bias: torch.Tensor | None = None,
    scale: float = 1.0,
    cu_seqlens: torch.Tensor | None = None,
) -> torch.Tensor:
    """``x Wᵀ + bias + scale · (x a) b``; arguments and shapes as in `hyper_lora_linear`."""
    samples = max(len(a), len(b))
    a, b = a.expand(samples, -1, -1), b.expand(samples, -1, -1)
    if cu_seqlens is None:
        per_sample = list(x.reshape(samples, -1, x.shape[-1]))
    else:
        bounds = cu_seqlens.tolist()
        per_sample = [x[start:end] for start, end in pairwise(bounds)]
    outputs = []
    for rows, a_of_sample, b_of_sample in zip(per_sample, a, b):
        y = rows @ weight.T + scale * ((rows @ a_of_sample) @ b_of_sample)
        outputs.append(y if bias is None else y + bias)
    return torch.cat(outputs).reshape(*x.shape[:-1], weight.shape[0])
