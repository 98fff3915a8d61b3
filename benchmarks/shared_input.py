"""The adapters of q, k and v, which read one x: a product of x with each A, or one with all of them.

Both are checked against float64 before they are timed. `python benchmarks/shared_input.py`
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from kernel import SCALE, refuse_if_off
from measure import compare
from torch import Tensor

from aag_hf.kernels.hyper_lora import hyper_lora_add, hyper_lora_shrink

BASELINE = "a product with each A"
RANK = 8

Form = Callable[[Tensor, list[Tensor], list[Tensor], list[Tensor]], list[Tensor]]


@dataclass
class Setting:
    """Samples, tokens of each, width of x, widths of q, k and v, dtype."""

    samples: int
    tokens: int
    width: int
    widths: tuple[int, int, int]
    dtype: torch.dtype

    def __str__(self) -> str:
        widths, dtype = ", ".join(map(str, self.widths)), str(self.dtype).removeprefix("torch.")
        return f"{self.samples} × {self.tokens} tokens, {self.width} → {widths}, rank {RANK}, {dtype}"


CPU = [
    Setting(4, 128, 576, (576, 192, 192), torch.bfloat16),
    Setting(4, 128, 576, (576, 192, 192), torch.float32),
    Setting(4, 128, 2048, (2048, 2048, 2048), torch.bfloat16),
]
GPU = [Setting(8, tokens, 2048, (2048, 2048, 2048), torch.bfloat16) for tokens in (1, 256, 2048)]


def with_each(x: Tensor, ys: list[Tensor], a: list[Tensor], b: list[Tensor]) -> list[Tensor]:
    return [hyper_lora_add(*of_layer, SCALE) for of_layer in zip(ys, [x] * len(ys), a, b)]


def with_all(x: Tensor, ys: list[Tensor], a: list[Tensor], b: list[Tensor]) -> list[Tensor]:
    products = hyper_lora_shrink(x, torch.cat(a, -1)).chunk(len(a), -1)
    return [hyper_lora_add(y, x, of_a, of_b, SCALE, shrunk=shrunk) for y, of_a, of_b, shrunk in zip(ys, a, b, products)]


def formula(x: Tensor, ys: list[Tensor], a: list[Tensor], b: list[Tensor]) -> list[Tensor]:
    return [y + SCALE * (x @ of_a) @ of_b for y, of_a, of_b in zip(ys, a, b)]


def step(form: Form, x: Tensor, ys: list[Tensor], a: list[Tensor], b: list[Tensor]) -> tuple[Tensor, ...]:
    """Forward and backward, with the base layers' outputs in the place of their gradients."""
    outputs = form(x, ys, a, b)
    return *outputs, *torch.autograd.grad(outputs, [x, *a, *b], ys)


@torch.no_grad()
def forward(form: Form, x: Tensor, ys: list[Tensor], a: list[Tensor], b: list[Tensor]) -> list[Tensor]:
    return form(x, ys, a, b)


def run(setting: Setting, device: str, rounds: int, calls: int) -> None:
    torch.manual_seed(0)

    def random(*shape: int, size: float = 1.0) -> Tensor:
        return (torch.randn(setting.samples, *shape, device=device) * size).to(setting.dtype)

    x = random(setting.tokens, setting.width).requires_grad_()
    ys = [random(setting.tokens, width) for width in setting.widths]
    a = [random(setting.width, RANK, size=setting.width**-0.5).requires_grad_() for _ in setting.widths]
    b = [random(RANK, width).requires_grad_() for width in setting.widths]
    wide = [[t.detach().double().requires_grad_() for t in tensors] for tensors in ([x], ys, a, b)]
    expected = step(formula, wide[0][0], *wide[1:])
    forms = {BASELINE: with_each, "one product with all A's": with_all}
    for name, form in forms.items():
        refuse_if_off(name, step(form, x, ys, a, b), expected)
    for name, timed in {"forward": forward, "forward and backward": step}.items():
        cases = {case: partial(timed, form, x, ys, a, b) for case, form in forms.items()}
        compare(f"q, k and v of one input, {name}", cases, BASELINE, rounds, calls, str(setting))


def main() -> None:
    on_gpu = torch.cuda.is_available()
    for setting in GPU if on_gpu else CPU:
        run(setting, "cuda" if on_gpu else "cpu", rounds=20, calls=20 if on_gpu else 5)


if __name__ == "__main__":
    main()
