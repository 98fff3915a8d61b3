"""The forward of a linear layer with an adapter for each sample, which Hugging Face's `kernels` puts into others."""

import torch
from torch import nn

from aag_hf.kernels.hyper_lora.functional import hyper_lora_linear


class HyperLoraLinear(nn.Module):
    """A linear layer that is given a LoRA of its own for each sample."""

    has_backward = True
    weight: torch.Tensor
    bias: torch.Tensor | None

    def forward(
        self,
        x: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float = 1.0,
        cu_seqlens: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As `hyper_lora_linear`, by the Triton kernels where they can run."""
        return hyper_lora_linear(x, self.weight, a, b, self.bias, scale, cu_seqlens, use_triton=True)
