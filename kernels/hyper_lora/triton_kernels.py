"""Triton kernels of the per-sample LoRA matmul: three products, each row with its own sample's matrix.

Rows of all samples lie flat, ``(T, width)``. Sample g owns the rows ``cu_seqlens[g]:cu_seqlens[g + 1]`` of packed rows,
and the g-th of G equal parts without `cu_seqlens`. Sums are in fp32 and in a fixed order: no atomics.

A sample's matrix is addressed by its strides, so that a transpose costs nothing and the backward pass is made of the
same products. Rank and strides within a matrix are compile-time constants: Triton knows of an argument only whether 16
divides it, and at rank 8 would load the matrices value by value.
"""

import torch
import triton
import triton.language as tl

# Row tiles are large where enough of them remain to fill a GPU. In fp32 they would need more registers than there are.
LARGE_TILE, SMALL_TILE, MANY_ROWS = 64, 16, 64 * 128
# A warp reads this many bytes of a row at a time.
ROW_BYTES = 256


@triton.jit
def _row_tile(cu_seqlens, samples, rows, TILE: tl.constexpr, SAMPLES: tl.constexpr):
    """The sample of this program's row tile, the tile's rows, and which of them are the sample's."""
    tile = tl.program_id(0)
    if cu_seqlens is None:
        tiles = tl.cdiv(rows, TILE)
        sample = tile // tiles
        start = sample * rows + tile % tiles * TILE
        end = sample * rows + rows
    else:
        g = tl.arange(0, SAMPLES)
        starts = tl.load(cu_seqlens + g, mask=g < samples, other=0)
        ends = tl.load(cu_seqlens + g + 1, mask=g < samples, other=0)
        tiles = (ends - starts + TILE - 1) // TILE
        tiles_until = tl.cumsum(tiles, 0)
        sample = tl.sum((tiles_until <= tile).to(tl.int32), 0)
        # Where there is no such tile, no g is this sample, and start and end are 0.
        start = tl.sum(tl.where(g == sample, starts + (tile - tiles_until + tiles) * TILE, 0), 0)
        end = tl.sum(tl.where(g == sample, ends, 0), 0)
    row = start.to(tl.int64) + tl.arange(0, TILE)
    return sample.to(tl.int64), row[:, None], (row < end)[:, None], start < end


@triton.jit
def _shrink_kernel(
    x, w, u, cu_seqlens, samples, rows, width, x_stride, w_stride,
    W_IN: tl.constexpr, W_OUT: tl.constexpr, RANK: tl.constexpr, RANKS: tl.constexpr, TILE: tl.constexpr,
    SAMPLES: tl.constexpr, COLUMNS: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    sample, row, row_ok, any_row = _row_tile(cu_seqlens, samples, rows, TILE, SAMPLES)
    if not any_row:
        return
    r = tl.arange(0, RANKS)[None, :]
    column = tl.arange(0, COLUMNS)
    x += row * x_stride + column[None, :]
    w += sample * w_stride + column[:, None] * W_IN + r * W_OUT
    total = tl.zeros((TILE, RANKS), tl.float32)
    for done in range(0, width, COLUMNS):
        column_ok = column < width - done
        x_tile = tl.load(x, mask=row_ok & column_ok[None, :], other=0.0)
        w_tile = tl.load(w, mask=column_ok[:, None] & (r < RANK), other=0.0, eviction_policy="evict_last")
        total = tl.dot(x_tile.to(DOT), w_tile.to(DOT), total, input_precision="ieee")
        x += COLUMNS
        w += COLUMNS * W_IN
    tl.store(u + row * RANK + r, total.to(u.dtype.element_ty), mask=row_ok & (r < RANK))


@triton.jit
def _expand_kernel(
    y, u, w, out, cu_seqlens, samples, rows, width, scale, y_stride, w_stride, out_stride,
    W_IN: tl.constexpr, W_OUT: tl.constexpr, RANK: tl.constexpr, RANKS: tl.constexpr, TILE: tl.constexpr,
    SAMPLES: tl.constexpr, COLUMNS: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    sample, row, row_ok, any_row = _row_tile(cu_seqlens, samples, rows, TILE, SAMPLES)
    if not any_row:
        return
    r = tl.arange(0, RANKS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    u_tile = tl.load(u + row * RANK + r[None, :], mask=row_ok & (r < RANK)[None, :], other=0.0)
    w_tile = tl.load(
        w + sample * w_stride + r[:, None] * W_IN + column * W_OUT,
        mask=(r < RANK)[:, None] & (column < width), other=0.0,
    )  # fmt: skip
    total = tl.dot(u_tile.to(DOT), w_tile.to(DOT), input_precision="ieee") * scale
    if y is not None:
        total += tl.load(y + row * y_stride + column, mask=row_ok & (column < width), other=0.0).to(tl.float32)
    tl.store(out + row * out_stride + column, total.to(out.dtype.element_ty), mask=row_ok & (column < width))


@triton.jit
def _outer_kernel(
    x, u, out, cu_seqlens, rows, width, scale, x_stride,
    RANK: tl.constexpr, RANKS: tl.constexpr, TILE: tl.constexpr, COLUMNS: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    sample = tl.program_id(0)
    if cu_seqlens is None:
        start, end = sample * rows, sample * rows + rows
    else:
        start, end = tl.load(cu_seqlens + sample), tl.load(cu_seqlens + sample + 1)
    r = tl.arange(0, RANKS)[None, :]
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((COLUMNS, RANKS), tl.float32)
    for first in range(start, end, TILE):
        row = (first + tl.arange(0, TILE))[:, None].to(tl.int64)
        x_tile = tl.load(x + row * x_stride + column[None, :], mask=(row < end) & (column < width)[None, :], other=0.0)
        u_tile = tl.load(u + row * RANK + r, mask=(row < end) & (r < RANK), other=0.0)
        total = tl.dot(tl.trans(x_tile).to(DOT), u_tile.to(DOT), total, input_precision="ieee")
    out += (sample.to(tl.int64) * width + column[:, None]) * RANK + r
    tl.store(out, (total * scale).to(out.dtype.element_ty), mask=(column < width)[:, None] & (r < RANK))


def shrink(x: torch.Tensor, w: torch.Tensor, cu_seqlens: torch.Tensor | None) -> torch.Tensor:
    """``u[t] = x[t] w[g]``: x ``(T, width)`` with adjacent columns, w ``(G, width, r)``, u ``(T, r)`` in x's dtype."""
    samples, width, rank = w.shape
    u = x.new_empty(x.shape[0], rank)
    tile, tiles = _tiles(x, samples, cu_seqlens)
    _launch(
        _shrink_kernel, (tiles,), x,
        x, w, u, cu_seqlens, samples, x.shape[0] // samples, width, x.stride(0), w.stride(0),
        W_IN=w.stride(1), W_OUT=w.stride(2), RANK=rank, TILE=tile, SAMPLES=_samples(samples, cu_seqlens),
        COLUMNS=ROW_BYTES // x.element_size(), num_warps=4, num_stages=3,
    )  # fmt: skip
    return u


def expand(
    y: torch.Tensor | None,
    u: torch.Tensor,
    w: torch.Tensor,
    scale: float,
    cu_seqlens: torch.Tensor | None,
    out: torch.Tensor,
) -> None:
    """``out[t] = y[t] + scale · u[t] w[g]``: u ``(T, r)``, w ``(G, r, width)``; y and out ``(T, width)``, maybe one."""
    samples, rank, width = w.shape
    tile, tiles = _tiles(out, samples, cu_seqlens)
    columns = ROW_BYTES // out.element_size()
    _launch(
        _expand_kernel, (tiles, triton.cdiv(width, columns)), out,
        y, u, w, out, cu_seqlens, samples, u.shape[0] // samples, width, scale,
        0 if y is None else y.stride(0), w.stride(0), out.stride(0),
        W_IN=w.stride(1), W_OUT=w.stride(2), RANK=rank, TILE=tile, SAMPLES=_samples(samples, cu_seqlens),
        COLUMNS=columns, num_warps=4, num_stages=1,
    )  # fmt: skip


def outer(
    x: torch.Tensor, u: torch.Tensor, samples: int, scale: float, cu_seqlens: torch.Tensor | None
) -> torch.Tensor:
    """``scale · x[rows of g]ᵀ u[rows of g]``: x ``(T, width)``, u ``(T, r)``; ``(G, width, r)`` in x's dtype."""
    width, rank = x.shape[1], u.shape[1]
    out = x.new_empty(samples, width, rank)
    columns = ROW_BYTES // x.element_size()
    _launch(
        _outer_kernel, (samples, triton.cdiv(width, columns)), x,
        x, u, out, cu_seqlens, x.shape[0] // samples, width, scale, x.stride(0),
        RANK=rank, TILE=LARGE_TILE, COLUMNS=columns, num_warps=4, num_stages=3,
    )  # fmt: skip
    return out


def _tiles(x: torch.Tensor, samples: int, cu_seqlens: torch.Tensor | None) -> tuple[int, int]:
    """Rows of a tile, and tiles; of packed rows at least as many as there are, whatever the samples' lengths."""
    rows = x.shape[0] // samples
    large = rows >= LARGE_TILE and x.shape[0] >= MANY_ROWS and x.dtype != torch.float32
    tile = LARGE_TILE if large else SMALL_TILE
    return tile, samples * triton.cdiv(rows, tile) if cu_seqlens is None else x.shape[0] // tile + samples


def _samples(samples: int, cu_seqlens: torch.Tensor | None) -> int:
    return 1 if cu_seqlens is None else triton.next_power_of_2(samples)


def _launch(kernel, grid: tuple[int, ...], like: torch.Tensor, *args, RANK: int, **options) -> None:
    # The interpreter multiplies bfloat16 as if its bit patterns were integers.
    dot = tl.float32 if triton.knobs.runtime.interpret else getattr(tl, str(like.dtype).removeprefix("torch."))
    with torch.cuda.device_of(like):
        kernel[grid](*args, RANK=RANK, RANKS=max(16, triton.next_power_of_2(RANK)), DOT=dot, **options)
