"""One linear layer with an adapter for each sample, in every form: forward, and forward and backward.

Each form is checked against float64 before it is timed. `python benchmarks/kernel.py`
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from measure import compare, copy_bandwidth
from torch import Tensor

from aag_hf.kernels.hyper_lora import gated_lora_linear, hyper_lora_add, hyper_lora_linear, hyper_lora_naive
from aag_hf.kernels.hyper_lora.dispatch import computes_in_single_precision

BASELINE = "bmm, scale, add"
BASE = "frozen base"
HIDDEN = 8
SCALE = 0.5
# Of each tensor's largest value.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 3e-2, torch.float16: 6e-3}
LARGEST_GATHER = 4 * 2**30

Form = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass
class Setting:
    """Samples, tokens of each, width in and out, rank, dtype."""

    samples: int
    tokens: int
    width: int
    rank: int
    dtype: torch.dtype

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.samples} × {self.tokens} tokens, {self.width} → {self.width}, rank {self.rank}, {dtype}"

    def bytes_of_adapter(self, backward: bool) -> int:
        """What the adapter must move: x and y once each way, y read and written; backward dy, x, and dx twice."""
        activation = self.samples * self.tokens * self.width
        matrices = 2 * self.samples * self.width * self.rank
        return self.dtype.itemsize * ((7 * activation + 4 * matrices) if backward else (3 * activation + matrices))


CPU = [
    Setting(8, 128, 768, 8, torch.float32),
    Setting(8, 128, 768, 8, torch.bfloat16),
    Setting(8, 128, 768, 32, torch.bfloat16),
    Setting(8, 1, 768, 8, torch.bfloat16),
]
GPU = [
    *(Setting(8, 2048, width, rank, torch.bfloat16) for width in (2048, 4096) for rank in (8, 64)),
    Setting(8, 256, 2048, 8, torch.bfloat16),
    *(Setting(samples, 1, 4096, 8, torch.bfloat16) for samples in (8, 64)),
]


def bmm_scale_add(x: Tensor, weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return F.linear(x, weight) + torch.bmm(torch.bmm(x, a), b) * SCALE


def einsum(x: Tensor, weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return F.linear(x, weight) + torch.einsum("gld,gdr,gro->glo", x, a, b) * SCALE


def gather(x: Tensor, weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """A copy of the adapter for every token, as packed Doc-to-LoRA does."""
    tokens = x.shape[1]
    a, b = (m.unsqueeze(1).expand(-1, tokens, -1, -1).flatten(0, 1) for m in (a, b))
    update = torch.bmm(torch.bmm(x.flatten(0, 1).unsqueeze(1), a), b)
    return F.linear(x, weight) + update.view_as(x) * SCALE


def triton_beside(x: Tensor, weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return hyper_lora_add(F.linear(x, weight), x, a, b, SCALE, use_triton=True)


def forms(setting: Setting) -> dict[str, Form]:
    """By name, functions of x, weight, a and b."""
    torch_path = partial(hyper_lora_linear, scale=SCALE)
    found: dict[str, Form] = {BASELINE: bmm_scale_add, "einsum": einsum, "torch path": torch_path}
    copies = 2 * setting.samples * setting.tokens * setting.width * setting.rank * setting.dtype.itemsize
    if copies <= LARGEST_GATHER:
        found["gather for each token"] = gather
    if torch.cuda.is_available():
        found["Triton"] = partial(hyper_lora_linear, scale=SCALE, use_triton=True)
        found["Triton beside the base layer"] = triton_beside
    return found


def make_inputs(setting: Setting, device: str) -> tuple[list[Tensor], list[Tensor]]:
    """x, a frozen weight, a and b; and h, w2a and w2b of the gated form, that make the same a and b."""
    torch.manual_seed(0)
    width, rank = setting.width, setting.rank

    def random(*shape: int, size: float = 1.0, trained: bool = True) -> Tensor:
        return (torch.randn(shape, device=device) * size).to(setting.dtype).requires_grad_(trained)

    x = random(setting.samples, setting.tokens, width)
    weight = random(width, width, size=width**-0.5, trained=False)
    h = random(setting.samples, HIDDEN)
    w2a, w2b = random(width, rank, HIDDEN + 1, size=(9 * width) ** -0.5), random(rank, HIDDEN + 1, width, size=1 / 3)
    h1 = F.pad(h.detach(), (0, 1), value=1.0)
    a, b = torch.einsum("drm,gm->gdr", w2a.detach(), h1), torch.einsum("gm,rmo->gro", h1, w2b.detach())
    return [x, weight, a.requires_grad_(), b.requires_grad_()], [x, weight, h, w2a, w2b]


def step(form: Callable[..., Tensor], inputs: list[Tensor], cotangent: Tensor) -> tuple[Tensor, ...]:
    """Forward and backward: the output and the gradients of what is trained."""
    y = form(*inputs)
    return y, *torch.autograd.grad(y, [t for t in inputs if t.requires_grad], cotangent)


@torch.no_grad()
def forward(form: Callable[..., Tensor], inputs: list[Tensor]) -> Tensor:
    return form(*inputs)


def check(name: str, form: Callable[..., Tensor], inputs: list[Tensor], reference: Form, cotangent: Tensor) -> None:
    """Refuse to time a form whose output or gradients are not those of the formula in float64."""
    wide = [t.detach().double().requires_grad_(t.requires_grad) for t in inputs]
    refuse_if_off(name, step(form, inputs, cotangent), step(reference, wide, cotangent.double()))


def refuse_if_off(name: str, actual: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for left, right in zip(actual, expected, strict=True):
        error = ((left.double() - right).abs().max() / right.abs().max()).item()
        if not error <= TOLERANCE[left.dtype]:
            raise RuntimeError(f"{name}: off by {error:.2g} of the largest value, for a tensor {tuple(left.shape)}.")


def gated_naive(x: Tensor, weight: Tensor, h: Tensor, w2a: Tensor, w2b: Tensor) -> Tensor:
    h1 = F.pad(h, (0, 1), value=1.0)
    a, b = torch.einsum("drm,gm->gdr", w2a, h1), torch.einsum("gm,rmo->gro", h1, w2b)
    return hyper_lora_naive(x, weight, a, b, scale=SCALE)


def run(setting: Setting, device: str, bandwidth: float | None, rounds: int, calls: int) -> None:
    plain, gated_inputs = make_inputs(setting, device)
    cotangent = torch.randn_like(plain[0])
    gated = partial(gated_lora_linear, scale=SCALE)
    named = {name: (form, plain, partial(hyper_lora_naive, scale=SCALE)) for name, form in forms(setting).items()}
    named["gated"] = (gated, gated_inputs, gated_naive)
    # As adapters from documents have it: an A that all share, and a B for each.
    shared = [*plain[:2], plain[2][:1].detach().requires_grad_(), plain[3]]
    for name in ("torch path", "Triton"):
        if name in named:
            named[f"{name}, one A for all"] = (named[name][0], shared, named[name][2])
    if computes_in_single_precision(device, setting.dtype, setting.tokens):
        single = [*plain[:2], *(matrix.detach().float().requires_grad_() for matrix in plain[2:])]
        named["torch path, adapters in fp32"] = (*named["torch path"][:1], single, *named["torch path"][2:])
    for name, (form, inputs, reference) in named.items():
        check(name, form, inputs, reference, cotangent)
    base = [plain[0], plain[1]]
    measured = {BASE: (F.linear, base), **{name: (form, inputs) for name, (form, inputs, _) in named.items()}}
    for backward in (False, True):
        cases: dict[str, Callable[[], object]] = {
            name: partial(step, form, inputs, cotangent) if backward else partial(forward, form, inputs)
            for name, (form, inputs) in measured.items()
        }
        roofline = (BASE, setting.bytes_of_adapter(backward) / bandwidth) if bandwidth else None
        name = "kernel, forward and backward" if backward else "kernel, forward"
        compare(name, cases, BASELINE, rounds, calls, str(setting), roofline)


def main() -> None:
    on_gpu = torch.cuda.is_available()
    bandwidth = copy_bandwidth() if on_gpu else None
    if bandwidth:
        print(f"a copy within the GPU's memory moves {bandwidth / 1e12:.2f} TB/s")
    for setting in GPU if on_gpu else CPU:
        calls = 20 if on_gpu or setting.tokens == 1 else 1
        run(setting, "cuda" if on_gpu else "cpu", bandwidth, rounds=20 if on_gpu else 10, calls=calls)


if __name__ == "__main__":
    main()
