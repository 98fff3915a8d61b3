"""Compile every specialisation of the Triton kernels for a GPU that need not be there.

`python tests/kernels/compile_kernels.py 80 90` prints a line of JSON for each: its target, kernel, setting, registers,
and the bytes of local memory a thread needs, which are 0 unless registers spill.

The product's own launchers run, on tensors without storage, under a Triton driver that takes what would be launched and
launches nothing. So it is they who decide what is compiled.
"""

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget

ROOT = Path(__file__).resolve().parents[2]
SHARED_MEMORY = {80: 166912, 90: 232448}
SAMPLES, WIDTH = 8, 4096
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
# dtype, rank, rows per sample, packed: of what `choose_path` lets through, compiled code depends on the dtype, the
# rank's power of two and whether 16 divides it, the size of row tiles (few or many rows; few in fp32) and packing.
SETTINGS = [
    *((BF16, rank, rows, packed) for rank in (8, 32, 64) for rows in (16, 2048) for packed in (False, True)),
    (BF16, 3, 2048, True),
    (BF16, 8, 1, False),
    (FP16, 64, 2048, False),
    *((FP32, rank, 2048, True) for rank in (8, 64)),
]


class RecordingDriver:
    """What Triton asks of a driver, without a device."""

    def __init__(self, architecture: int):
        self.architecture = architecture
        self.compiled: list[tuple[str, bytes]] = []
        self.utils = self

    def get_current_device(self) -> int:
        return self.architecture

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.architecture, 32)

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": SHARED_MEMORY[self.architecture]}

    def launcher_cls(self, source, metadata):
        return lambda *arguments: None

    def load_binary(self, name: str, binary: bytes, shared_memory: int, device: int):
        self.compiled.append((name, binary))
        return None, None, 0, 0, 1024


def launch_all(kernels, dtype: torch.dtype, rank: int, rows: int, packed: bool) -> None:
    """Every launch of a forward and a backward pass."""

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    x, a, b = empty(SAMPLES * rows, WIDTH), empty(SAMPLES, WIDTH, rank), empty(SAMPLES, rank, WIDTH)
    cu_seqlens = torch.empty(SAMPLES + 1, dtype=torch.int32, device="meta") if packed else None
    u = kernels.shrink(x, a, cu_seqlens)
    kernels.expand(x, u, b, 0.5, cu_seqlens, x)
    du = kernels.shrink(x, b.mT, cu_seqlens)
    kernels.expand(x, du, a.mT, 0.5, cu_seqlens, x)
    kernels.expand(None, du, a.mT, 0.5, cu_seqlens, x)
    kernels.outer(x, du, SAMPLES, 0.5, cu_seqlens)


def resources(binary: bytes) -> dict[str, int]:
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        command = [tool, "--dump-resource-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack, local = (int(re.search(rf"\b{name}:(\d+)", usage)[1]) for name in ("REG", "STACK", "LOCAL"))
    return {"registers": registers, "spilled": stack + local}


def main() -> None:
    # By its path: importing the package would import transformers, for seconds.
    spec = importlib.util.spec_from_file_location("triton_kernels", ROOT / "kernels/hyper_lora/triton_kernels.py")
    kernels = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kernels)
    for architecture in map(int, sys.argv[1:]):
        driver = RecordingDriver(architecture)
        triton.runtime.driver.set_active(driver)
        for setting in SETTINGS:
            driver.compiled.clear()
            launch_all(kernels, *setting)
            for name, binary in driver.compiled:
                row = {"target": f"sm_{architecture}", "kernel": name, "setting": str(setting), **resources(binary)}
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
