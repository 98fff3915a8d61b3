"""Which path computes the per-sample LoRA matmul."""

from typing import Literal

import torch

TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def choose_path(
    device: str, dtype: torch.dtype | None, rows: int, widths: tuple[int, ...], rank: int, use_triton: bool = False
) -> Literal["torch", "triton"]:
    """Name the path by device, dtype, shape and rank.

    The Triton kernels run where all of this holds, torch operations everywhere else:

    1. `use_triton` was asked for. It is off by default: the kernels become the default of a GPU once a benchmark on it
       shows a gain (``make bench-gpu``). On an H200 they gain at a width of 4096 with 2048 rows each, and lose below.
    2. The tensors are on a CUDA device.
    3. They are all fp32, all bf16 or all fp16.
    4. There is at least one row, and 16 divides its width, in and out: rows are then read 16 bytes at a time.
    5. The rank is at most 16, or a multiple of 8 and at most 64. Compiled for some ranks between, registers spill.

    Args:
        device: Type of the device, as in ``x.device.type``.
        dtype: What the product is computed in; ``None`` where the tensors do not agree.
        rows: Rows of all samples together.
        widths: d_in and d_out.
        rank: Rank of the samples' matrices.
        use_triton: What the caller wants.

    Example:

    ```python
    >>> import torch
    >>> from aag_hf.kernels.hyper_lora.dispatch import choose_path
    >>> choose_path("cuda", torch.bfloat16, rows=8192, widths=(2048, 2048), rank=8, use_triton=True)
    'triton'
    >>> choose_path("cpu", torch.bfloat16, rows=8192, widths=(2048, 2048), rank=8, use_triton=True)
    'torch'

    ```
    """
    type_fits = device == "cuda" and dtype in TRITON_DTYPES
    shape_fits = rows > 0 and all(width % 16 == 0 for width in widths)
    rank_fits = 1 <= rank <= 16 or (rank <= 64 and rank % 8 == 0)
    return "triton" if use_triton and type_fits and shape_fits and rank_fits else "torch"


def computes_in_single_precision(device: str, dtype: torch.dtype, rows_per_sample: int) -> bool:
    """Whether torch operations leave fp32 adapters as they are beside half-precision rows, instead of rounding them.

    So on a CPU for at most 8 rows per sample, which is decoding, with beams or without: a half-precision product there
    takes longer to set up than an fp32 one takes to compute.
    """
    return device == "cpu" and dtype in (torch.bfloat16, torch.float16) and rows_per_sample <= 8
