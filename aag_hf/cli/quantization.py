"""Base models in 8 or 4 bits, by bitsandbytes."""

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Literal

import torch
from transformers import BitsAndBytesConfig

from aag_hf.errors import InputError


@dataclass
class QuantizationOptions:
    """How many bits a base model has.

    The fields with other names are those of `BitsAndBytesConfig`.
    """

    quantization: Literal["8bit", "4bit"] | None = field(
        default=None, metadata={"help": "Load the base weights in 8 or 4 bits, with bitsandbytes."}
    )
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = field(default="nf4", metadata={"help": "The kind of 4-bit numbers."})
    bnb_4bit_use_double_quant: bool = field(
        default=True, metadata={"help": "Also quantise the scales of 4-bit numbers."}
    )
    bnb_4bit_compute_dtype: Literal["float32", "bfloat16", "float16"] | None = field(
        default=None, metadata={"help": "The dtype in which 4-bit layers compute; by default `dtype`."}
    )

    def quantization_config(self, dtype: torch.dtype, device: torch.device) -> BitsAndBytesConfig:
        """The configuration that `from_pretrained` takes.

        Args:
            dtype: The dtype of all that is not quantised.
            device: Where the model will run.

        Raises:
            InputError: bitsandbytes is not installed, or has no kernel for the device.
        """
        if find_spec("bitsandbytes") is None:
            raise InputError(
                f"quantization {self.quantization} needs bitsandbytes: pip install 'aag-hf[quantization]'."
            )
        compute = dtype if self.bnb_4bit_compute_dtype is None else getattr(torch, self.bnb_4bit_compute_dtype)
        self._try_kernels(compute, device)
        if self.quantization == "8bit":
            return BitsAndBytesConfig(load_in_8bit=True)
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.bnb_4bit_quant_type,
            bnb_4bit_use_double_quant=self.bnb_4bit_use_double_quant,
            bnb_4bit_compute_dtype=compute,
        )

    def _try_kernels(self, compute: torch.dtype, device: torch.device) -> None:
        """Run a small layer, since the kernels depend on the device, its drivers and the library's build."""
        try:
            from bitsandbytes.nn import Linear4bit, Linear8bitLt

            if self.quantization == "8bit":
                layer = Linear8bitLt(64, 64, bias=False, has_fp16_weights=False)
            else:
                kind = {"quant_type": self.bnb_4bit_quant_type, "compress_statistics": self.bnb_4bit_use_double_quant}
                layer = Linear4bit(64, 64, bias=False, compute_dtype=compute, **kind)
            layer.to(device)(torch.zeros(1, 64, device=device, dtype=compute))
        except Exception as error:
            raise InputError(
                f"quantization {self.quantization}: bitsandbytes cannot compute on {device} here: {error}: load the "
                "model in a dtype instead."
            ) from error
