"""The per-sample LoRA matmul by Triton kernels, differentiable.

The kernels are operators of torch.library, so that torch.compile takes each as a whole. They are defined by
`Library.define` and differentiated by our own `autograd.Function`: a call costs a few microseconds less than through
`torch.library.custom_op`, which counts while decoding. Triton itself is imported when the first kernel runs.

All tensors of a call have one dtype; rows are flat, ``(T, width)``, with adjacent columns.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from aag_hf.kernels.hyper_lora.namespace import NAMESPACE

_library = torch.library.Library(NAMESPACE, "DEF")
_library.define("hyper_lora_shrink(Tensor x, Tensor w, Tensor? cu_seqlens) -> Tensor")
_library.define("hyper_lora_expand(Tensor? y, Tensor u, Tensor w, float scale, Tensor? cu_seqlens) -> Tensor")
_library.define("hyper_lora_expand_(Tensor(a!) y, Tensor u, Tensor w, float scale, Tensor? cu_seqlens) -> ()")
_library.define("hyper_lora_outer(Tensor x, Tensor u, SymInt samples, float scale, Tensor? cu_seqlens) -> Tensor")


def _shrink(x: Tensor, w: Tensor, cu_seqlens: Tensor | None) -> Tensor:
    from aag_hf.kernels.hyper_lora import triton_kernels

    return triton_kernels.shrink(x, w, cu_seqlens)


def _expand(y: Tensor | None, u: Tensor, w: Tensor, scale: float, cu_seqlens: Tensor | None) -> Tensor:
    from aag_hf.kernels.hyper_lora import triton_kernels

    out = u.new_empty(u.shape[0], w.shape[2])
    triton_kernels.expand(y, u, w, scale, cu_seqlens, out)
    return out


def _expand_in_place(y: Tensor, u: Tensor, w: Tensor, scale: float, cu_seqlens: Tensor | None) -> None:
    from aag_hf.kernels.hyper_lora import triton_kernels

    triton_kernels.expand(y, u, w, scale, cu_seqlens, y)


def _outer(x: Tensor, u: Tensor, samples: int, scale: float, cu_seqlens: Tensor | None) -> Tensor:
    from aag_hf.kernels.hyper_lora import triton_kernels

    return triton_kernels.outer(x, u, samples, scale, cu_seqlens)


for _name, _kernel, _shape in (
    ("shrink", _shrink, lambda x, w, cu_seqlens: x.new_empty(x.shape[0], w.shape[2])),
    ("expand", _expand, lambda y, u, w, scale, cu_seqlens: u.new_empty(u.shape[0], w.shape[2])),
    ("expand_", _expand_in_place, lambda y, u, w, scale, cu_seqlens: None),
    ("outer", _outer, lambda x, u, samples, scale, cu_seqlens: x.new_empty(samples, x.shape[1], u.shape[1])),
):
    _library.impl(f"hyper_lora_{_name}", _kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::hyper_lora_{_name}", _shape, lib=_library)

_ops = getattr(torch.ops, NAMESPACE)


class _Linear(torch.autograd.Function):
    """``x Wᵀ + bias + scale · (x a) b``."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: float,
        cu_seqlens: Tensor | None,
    ) -> Tensor:
        y = F.linear(x, weight, bias)
        u = _ops.hyper_lora_shrink(x, a, cu_seqlens)
        _ops.hyper_lora_expand_(y, u, b, scale, cu_seqlens)
        ctx.save_for_backward(x, weight, a, b, u, cu_seqlens)
        ctx.scale = scale
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b, u, cu_seqlens = ctx.saved_tensors
        need_x, need_weight, need_bias, *need_matrices = ctx.needs_input_grad[:5]
        dy = dy.contiguous()
        dx = dy @ weight if need_x else None
        du, da, db = _matrix_gradients(dy, x, a, b, u, ctx.scale, cu_seqlens, need_matrices)
        if dx is not None:
            _ops.hyper_lora_expand_(dx, du, a.mT, ctx.scale, cu_seqlens)
        return dx, dy.mT @ x if need_weight else None, dy.sum(0) if need_bias else None, da, db, None, None


class _Add(torch.autograd.Function):
    """``y + scale · (x a) b``."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float, cu_seqlens: Tensor | None
    ) -> Tensor:
        u = _ops.hyper_lora_shrink(x, a, cu_seqlens)
        ctx.save_for_backward(x, a, b, u, cu_seqlens)
        ctx.scale = scale
        return _ops.hyper_lora_expand(y, u, b, scale, cu_seqlens)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, a, b, u, cu_seqlens = ctx.saved_tensors
        dy = dy.contiguous()
        du, da, db = _matrix_gradients(dy, x, a, b, u, ctx.scale, cu_seqlens, ctx.needs_input_grad[2:4])
        needs_x = ctx.needs_input_grad[1]
        dx = _ops.hyper_lora_expand(None, du, a.mT, ctx.scale, cu_seqlens) if needs_x else None
        return dy, dx, da, db, None, None


def _matrix_gradients(
    dy: Tensor,
    x: Tensor,
    a: Tensor,
    b: Tensor,
    u: Tensor,
    scale: float,
    cu_seqlens: Tensor | None,
    needed: tuple[bool, ...] | list[bool],
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """``dy bᵀ``, from which dx follows too, and the gradients of a and b."""
    samples = a.shape[0]
    du = _ops.hyper_lora_shrink(dy, b.mT, cu_seqlens)
    da = _ops.hyper_lora_outer(x, du, samples, scale, cu_seqlens) if needed[0] else None
    db = _ops.hyper_lora_outer(dy, u, samples, scale, cu_seqlens).mT if needed[1] else None
    return du, da, db


def hyper_lora_linear(
    x: Tensor, weight: Tensor, a: Tensor, b: Tensor, bias: Tensor | None, scale: float, cu_seqlens: Tensor | None
) -> Tensor:
    """As its namesake of the package, for checked shapes and tensors of one dtype."""
    return _Linear.apply(_rows(x), weight, bias, a, b, scale, cu_seqlens).view(*x.shape[:-1], weight.shape[0])


def hyper_lora_add(y: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float, cu_seqlens: Tensor | None) -> Tensor:
    """As its namesake of the package, for checked shapes and tensors of one dtype."""
    return _Add.apply(_rows(y), _rows(x), a, b, scale, cu_seqlens).view(y.shape)


def _rows(x: Tensor) -> Tensor:
    rows = x.reshape(-1, x.shape[-1])
    return rows if rows.stride(-1) == 1 else rows.contiguous()
