"""The plugin by which vLLM finds the adapters that `aag serve --vllm` made."""

import os

from vllm.lora.request import LoRARequest
from vllm.lora.resolver import LoRAResolver, LoRAResolverRegistry

from aag_hf.serving.adapter_names import adapter_folder_name, adapters_path


class AagResolver(LoRAResolver):
    """Finds ``aag:question:DIGEST`` and ``aag:document:DIGEST`` in the folder of adapters."""

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
        """The adapter of a name; ``None`` if it is not ours, or not there."""
        folder = adapter_folder_name(lora_name)
        if folder is None:
            return None
        path = adapters_path() / folder
        # Without it vLLM would look for a pickled one.
        if not (path / "adapter_model.safetensors").is_file():
            return None
        os.utime(path)
        return LoRARequest(lora_name=lora_name, lora_int_id=1 + int(folder[-15:], 16), lora_path=str(path))


def register_aag_resolver() -> None:
    """Called by vLLM in each of its processes."""
    LoRAResolverRegistry.register_resolver("aag", AagResolver())
