"""The per-sample LoRA matmul as users call it: in torch operations, or by Triton kernels where those were asked for."""

import torch
import torch.nn.functional as F

from aag_hf.kernels.hyper_lora import triton_path
from aag_hf.kernels.hyper_lora.dispatch import choose_path, computes_in_single_precision


def hyper_lora_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    bias: torch.Tensor | None = None,
    scale: float = 1.0,
    cu_seqlens: torch.Tensor | None = None,
    use_triton: bool = False,
) -> torch.Tensor:
    """A linear layer with a LoRA adapter of its own for each sample: ``x Wᵀ + bias + scale · (x a) b``.

    Rows are sample-major: the rows of one sample (its tokens, beams, passages) are adjacent.

    Args:
        x: ``(G, L, d_in)``, ``(G·P, L, d_in)`` with P rows per sample, or packed ``(T, d_in)`` with `cu_seqlens`.
        weight: ``(d_out, d_in)``.
        a: ``(G, d_in, r)``, the samples' down projections; ``(1, d_in, r)`` for one that all share.
        b: ``(G, r, d_out)``, the samples' up projections; likewise.
        bias: ``(d_out,)``.
        scale: Factor of the adapter's part.
        cu_seqlens: int32 ``(G + 1,)``: sample g owns the rows ``cu_seqlens[g]:cu_seqlens[g + 1]`` of a packed `x`.
        use_triton: Run the Triton kernels where `dispatch.choose_path` allows them, by default nowhere. They find the
            samples of packed rows on the device, without waiting for it, and cannot be differentiated twice.

    Returns:
        ``(..., d_out)`` in the dtype of `x`; differentiable in `x`, `weight`, `a`, `b` and `bias`.

    Raises:
        ValueError: Shapes that do not fit each other.

    Example:

    ```python
    >>> import torch
    >>> from aag_hf.kernels.hyper_lora import hyper_lora_linear
    >>> x, weight = torch.randn(3, 5, 16), torch.randn(24, 16)
    >>> a, b = torch.randn(3, 16, 4), torch.randn(3, 4, 24)
    >>> hyper_lora_linear(x, weight, a, b, scale=2.0).shape
    torch.Size([3, 5, 24])

    ```
    """
    if weight.dim() != 2 or weight.shape[1] != x.shape[-1]:
        raise ValueError(f"weight {tuple(weight.shape)} does not fit x {tuple(x.shape)}: expected (d_out, d_in).")
    dtype = _triton_dtype(x, weight, a, b, use_triton)
    if dtype is not None:
        _check_shapes(x, a, b, weight.shape[0], cu_seqlens)
        bias = None if bias is None else bias.to(dtype)
        x, weight, a, b = (tensor.to(dtype) for tensor in (x, weight, *_of_each_sample(a, b)))
        return triton_path.hyper_lora_linear(x, weight, a, b, bias, scale, cu_seqlens)
    return hyper_lora_add(F.linear(x, weight, bias), x, a, b, scale, cu_seqlens, in_place=True)


def hyper_lora_add(
    y: torch.Tensor,
    x: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    scale: float = 1.0,
    cu_seqlens: torch.Tensor | None = None,
    use_triton: bool = False,
    in_place: bool = False,
) -> torch.Tensor:
    """``y + scale · (x a) b`` with each sample's own a and b, for a base layer that computed `y` in its own way.

    Args:
        y: ``(..., d_out)``, the base layer's output for `x`.
        x: As in `hyper_lora_linear`, like `a`, `b`, `scale`, `cu_seqlens` and `use_triton`.
        in_place: Let the result take the memory of `y` where it can: `y`, whose elements each have memory of their own,
            must not be used any more.

    Returns:
        A tensor of the shape and dtype of `y`.

    Raises:
        ValueError: Shapes that do not fit each other.
    """
    _check_shapes(x, a, b, y.shape[-1], cu_seqlens)
    dtype = _triton_dtype(x, y, a, b, use_triton)
    if dtype is not None:
        y, x, a, b = (tensor.to(dtype) for tensor in (y, x, *_of_each_sample(a, b)))
        return triton_path.hyper_lora_add(y, x, a, b, scale, cu_seqlens)
    if cu_seqlens is not None:
        return _add_packed(y, x, a, b, scale, cu_seqlens)
    samples = max(a.shape[0], b.shape[0])
    x_rows, y_rows = _by_sample(x, samples), _by_sample(y, samples)
    if a.dtype == b.dtype == torch.float32 and computes_in_single_precision(x.device.type, x.dtype, x_rows.shape[1]):
        update = torch.matmul(_shrink(x_rows.float(), a), b)
        result = y_rows.add_(update, alpha=scale) if in_place else torch.add(y_rows, update, alpha=scale).to(y.dtype)
    else:
        shrunk = _shrink(x_rows, a.to(x.dtype))
        b = b if b.shape[0] == samples else b.expand(samples, -1, -1)
        expand = torch.Tensor.baddbmm_ if in_place else torch.baddbmm
        result = expand(y_rows, shrunk.to(y.dtype), b.to(y.dtype), alpha=scale)
    return result if y_rows is y else result.reshape(y.shape)


def gated_lora_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    h: torch.Tensor,
    w2a: torch.Tensor,
    w2b: torch.Tensor,
    bias: torch.Tensor | None = None,
    scale: float = 1.0,
    cu_seqlens: torch.Tensor | None = None,
) -> torch.Tensor:
    """`hyper_lora_linear` for adapters that are affine in a hidden vector h, without ever building them.

    With ``h1 = [h, 1]``, ``a[g] = w2a @ h1[g]`` and ``b[g] = h1[g] @ w2b``, the adapters of all samples are one shared
    low-rank pair of rank ``(m + 1)·r``, gated twice by the sample's h1: plain matrix products, no stored adapter.

    Args:
        x: As in `hyper_lora_linear`, like `weight`, `bias`, `scale` and `cu_seqlens`.
        h: ``(G, m)``, the hypernetwork's hidden vectors.
        w2a: ``(d_in, r, m + 1)``; the last column is the bias of the head that makes a.
        w2b: ``(r, m + 1, d_out)``; likewise for b.

    Returns:
        ``(..., d_out)``.

    Raises:
        ValueError: Shapes that do not fit each other.
    """
    d_in, r, gates = w2a.shape
    if x.shape[-1] != d_in or weight.shape[1] != d_in or h.shape[1] + 1 != gates or w2b.shape[:2] != (r, gates):
        raise ValueError(
            f"x {tuple(x.shape)}, weight {tuple(weight.shape)}, h {tuple(h.shape)}, w2a {tuple(w2a.shape)} and w2b "
            f"{tuple(w2b.shape)} do not fit: expected (…, d_in), (d_out, d_in), (G, m), (d_in, r, m+1) and "
            "(r, m+1, d_out)."
        )
    rows = x.reshape(-1, d_in)
    gate = _rows_of_samples(F.pad(h, (0, 1), value=1.0), rows.shape[0], cu_seqlens).unsqueeze(1)
    shrunk = ((rows @ w2a.reshape(d_in, r * gates)).reshape(-1, r, gates) * gate).sum(-1, keepdim=True)
    expanded = (shrunk * gate).reshape(-1, r * gates)
    y = torch.addmm(F.linear(rows, weight, bias), expanded, w2b.reshape(r * gates, -1), alpha=scale)
    return y.reshape(*x.shape[:-1], weight.shape[0])


def _triton_dtype(
    x: torch.Tensor, base: torch.Tensor, a: torch.Tensor, b: torch.Tensor, use_triton: bool
) -> torch.dtype | None:
    """What the Triton kernels compute in, beside a tensor of the base layer; ``None`` where torch operations run."""
    if not use_triton:
        # Before the rule is asked: to collect its facts takes microseconds, which count while decoding.
        return None
    device, d_in, d_out = x.device.type, x.shape[-1], b.shape[-1]
    dtype = x.dtype if x.dtype == base.dtype else None
    if torch.is_autocast_enabled(device) and torch.float64 not in (x.dtype, base.dtype):
        dtype = torch.get_autocast_dtype(device)
    path = choose_path(device, dtype, x.numel() // max(d_in, 1), (d_in, d_out), a.shape[-1], use_triton)
    return dtype if path == "triton" else None


def _shrink(x_rows: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """``x a``; with one a for all samples a single product of matrices, whose gradient is one too."""
    return torch.matmul(x_rows, a[0]) if a.shape[0] == 1 else torch.bmm(x_rows, a)


def _of_each_sample(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The kernels find a sample's matrix by its stride, which is zero where all samples share one."""
    samples = max(a.shape[0], b.shape[0])
    return a.expand(samples, -1, -1), b.expand(samples, -1, -1)


def _by_sample(rows: torch.Tensor, samples: int) -> torch.Tensor:
    """``(samples, rows of each, width)``; often they lie so already, and every reshape takes a microsecond."""
    if rows.dim() == 3 and rows.shape[0] == samples:
        return rows
    return rows.reshape(samples, -1, rows.shape[-1])


def _rows_of_samples(values: torch.Tensor, rows: int, cu_seqlens: torch.Tensor | None) -> torch.Tensor:
    """Repeat each sample's vector ``(G, m)`` for its rows: ``(rows, m)``."""
    samples = values.shape[0]
    if cu_seqlens is not None:
        return values.repeat_interleave(cu_seqlens.diff(), dim=0, output_size=rows)
    if rows % samples:
        raise ValueError(f"{rows} rows do not divide among {samples} samples.")
    return values.repeat_interleave(rows // samples, dim=0)


def _add_packed(
    y: torch.Tensor, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float, cu_seqlens: torch.Tensor
) -> torch.Tensor:
    # Padded for the two products alone: one product per sample would take longer than the padding does.
    lengths = cu_seqlens.diff()
    places = torch.arange(int(lengths.max()), device=x.device) < lengths.unsqueeze(1)
    padded = x.new_zeros(*places.shape, x.shape[-1]).masked_scatter(places.unsqueeze(-1), x)
    update = torch.matmul(_shrink(padded, a.to(x.dtype)).to(y.dtype), b.to(y.dtype))
    return torch.add(y, update[places], alpha=scale)


def _check_shapes(
    x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, d_out: int, cu_seqlens: torch.Tensor | None
) -> None:
    (_, d_in, r), samples = a.shape, max(a.shape[0], b.shape[0])
    shared_or_each = {1, samples}
    if x.shape[-1] != d_in or b.shape[1:] != (r, d_out) or not {a.shape[0], b.shape[0]} <= shared_or_each:
        raise ValueError(
            f"x {tuple(x.shape)}, a {tuple(a.shape)}, b {tuple(b.shape)} and an output of width {d_out} do not "
            "fit: expected x (…, d_in), a (G, d_in, r) and b (G, r, d_out), with 1 for G where all samples share it."
        )
    if cu_seqlens is None:
        if x.shape[0] % samples:
            raise ValueError(
                f"x has {x.shape[0]} rows for {samples} adapters: rows must be a multiple of the number of samples, "
                "each sample's rows adjacent."
            )
    elif x.dim() != 2 or cu_seqlens.shape != (samples + 1,) or cu_seqlens.dtype != torch.int32:
        raise ValueError(
            f"cu_seqlens is {cu_seqlens.dtype} {tuple(cu_seqlens.shape)} for x {tuple(x.shape)}: packed rows need x "
            f"(T, d_in) and int32 ({samples + 1},)."
        )
