"""Adapters of questions and documents for a running SGLang server."""

import httpx2
import torch
from peft import LoraConfig

from aag_hf.errors import InputError
from aag_hf.serving.adapter_folder import AdapterFolder


class SglangAdapters:
    """Has a SGLang server load adapters that lie in a folder.

    SGLang can also take tensors in a request, ``/load_lora_adapter_from_tensors``. It reads them with pickle, which
    this package never writes, and by which strangers could run programs there (CVE-2026-15969). So adapters go through
    a folder that both processes see, and ``/load_lora_adapter``.

    Args:
        url: Of the server, started with ``--enable-lora``.
        folder: Where the adapters go; those that leave it are unloaded.
        api_key: What the server asks for, if it does.

    Example:

    ```python
    adapters = SglangAdapters("http://127.0.0.1:30000", AdapterFolder(adapters_path(), max_bytes=10**9))
    name = adapter_name("document", document_id(text), content_of("runs/memory"))
    adapters.load(name, *to_lora(model.reader, memory=model.memorize([text])))
    # POST /generate {"text": prompt, "lora_path": name, "sampling_params": {"temperature": 0}}
    ```
    """

    def __init__(self, url: str, folder: AdapterFolder, api_key: str | None = None):
        self.url, self.folder = url.rstrip("/"), folder
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._loaded: set[str] = set()

    def load(self, name: str, config: LoraConfig, weights: dict[str, torch.Tensor], pinned: bool = False) -> None:
        """Write an adapter and have it loaded; nothing happens if it is loaded.

        Args:
            name: As `adapter_name` gives it. Requests ask for it as ``lora_path``.
            config: The LoRA's configuration, as `to_lora` gives it.
            weights: Its weights, likewise.
            pinned: Keep it in the folder, and in the server's memory, until it is unloaded.

        Raises:
            InputError: The server refuses it, or does not answer.
        """
        if pinned:
            self.folder.in_use[name] = 1
        if not self.folder.holds(name):
            for other in self.folder.add(name, config, weights):
                self.unload(other)
        elif name in self._loaded:
            return
        path = str(self.folder.path_of(name))
        self._post("load_lora_adapter", {"lora_name": name, "lora_path": path, "pinned": pinned})
        self._loaded.add(name)

    def unload(self, name: str) -> None:
        """Have the server forget an adapter, if it was loaded.

        Raises:
            InputError: The server refuses it, or does not answer.
        """
        del self.folder.in_use[name]
        if name in self._loaded:
            self._loaded.remove(name)
            self._post("unload_lora_adapter", {"lora_name": name})

    def _post(self, endpoint: str, body: dict[str, str | bool]) -> None:
        try:
            response = httpx2.post(f"{self.url}/{endpoint}", json=body, headers=self._headers, timeout=60)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise InputError(f"{self.url}: no SGLang server answers there ({error}): start it first.") from None
        if response.status_code != 200:
            raise InputError(f"{self.url}/{endpoint}: refused with status {response.status_code}: {response.text:.500}")
