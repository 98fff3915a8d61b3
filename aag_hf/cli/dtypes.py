"""The types of weights that commands load."""

import torch

from aag_hf.errors import InputError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
AUTO = "auto"


def chosen_dtype(name: str) -> str:
    """The name of a type of weights: ``"auto"`` stands for the one that is fast here.

    That is bfloat16 on GPUs and CPUs with instructions for it, and float32 elsewhere: without them, a CPU takes several
    times as long for a product in bfloat16 as for one in float32.

    Raises:
        InputError: It is none.
    """
    if name == AUTO:
        return "bfloat16" if _is_bfloat16_fast() else "float32"
    if name not in DTYPES:
        raise InputError(f"dtype must be one of {', '.join([*DTYPES, AUTO])}, got {name!r}.")
    return name


def _is_bfloat16_fast() -> bool:
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # The last name is that of ARM.
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
