"""SGLang loads our adapters: against a stand-in that takes the fields which SGLang documents, and no others."""

import pytest
import torch
from peft import PeftModel
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from transformers import AutoModelForCausalLM

from aag_hf import to_lora
from aag_hf.errors import InputError
from aag_hf.serving.adapter_folder import AdapterFolder
from aag_hf.serving.adapter_names import adapter_name
from aag_hf.serving.sglang import SglangAdapters

TEXTS = [f"The capital of {place} is {place * 3}." for place in "ABCD"]
NAMES = [adapter_name("document", text, "reader") for text in TEXTS]


class StandIn:
    def __init__(self, base):
        self.base, self.loaded = base, {}
        routes = [Route("/load_lora_adapter", self.load, methods=["POST"])]
        routes += [Route("/unload_lora_adapter", self.unload, methods=["POST"])]
        self.app = Starlette(routes=routes)

    async def load(self, request):
        body = await request.json()
        types = {"lora_name": str, "lora_path": str, "pinned": bool}
        assert {name: type(value) for name, value in body.items()} == types
        if body["lora_name"] in self.loaded:
            return JSONResponse({"success": False, "error_message": "already loaded"}, 400)
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(self.base), body["lora_path"])
        self.loaded[body["lora_name"]] = (model, body["pinned"])
        return JSONResponse({"success": True, "error_message": None, "loaded_adapters": {}})

    async def unload(self, request):
        body = await request.json()
        assert set(body) == {"lora_name"}
        del self.loaded[body["lora_name"]]
        return JSONResponse({"success": True, "error_message": None, "loaded_adapters": {}})


@pytest.fixture
def stand_in(tiny_llama_dir):
    return StandIn(tiny_llama_dir)


@pytest.fixture
def adapters(stand_in, running, tmp_path):
    """The client, with room for two adapters."""
    with running(stand_in.app) as address:
        yield SglangAdapters(f"{address}/", AdapterFolder(tmp_path / "adapters", 6_000))


def test_the_server_has_the_documents_adapter(adapters, stand_in, memory_reader):
    memory = memory_reader.memorize(TEXTS)
    for number in (0, 1, 0):
        adapters.load(NAMES[number], *to_lora(memory_reader.reader, memory=memory[number]))
    assert set(stand_in.loaded) == set(NAMES[:2])
    ids = torch.tensor([[5, 6, 7, 8]])
    for number in (0, 1):
        expected = memory_reader.reader(input_ids=ids, memory=memory[number]).logits
        torch.testing.assert_close(stand_in.loaded[NAMES[number]][0](input_ids=ids).logits, expected)


def test_those_that_leave_the_folder_are_unloaded_and_pinned_ones_stay(adapters, stand_in, memory_reader):
    memory = memory_reader.memorize(TEXTS)
    for number, name in enumerate(NAMES):
        adapters.load(name, *to_lora(memory_reader.reader, memory=memory[number]), pinned=number == 0)
    assert set(stand_in.loaded) == {NAMES[0], NAMES[3]} and stand_in.loaded[NAMES[0]][1]
    adapters.unload(NAMES[0])
    assert set(stand_in.loaded) == {NAMES[3]}


def test_what_the_server_refuses_is_told(adapters, stand_in, memory_reader, tmp_path):
    lora = to_lora(memory_reader.reader, memory=memory_reader.memorize(TEXTS[:1]))
    adapters.folder.add(NAMES[0], *lora)
    stand_in.loaded[NAMES[0]] = None
    with pytest.raises(InputError, match=r"load_lora_adapter: refused with status 400: .*already loaded"):
        adapters.load(NAMES[0], *lora)
    nobody = SglangAdapters("http://127.0.0.1:9", AdapterFolder(tmp_path / "other", 10**9))
    with pytest.raises(InputError, match="no SGLang server answers there"):
        nobody.load(NAMES[0], *lora)


def test_a_key_is_sent(running, tmp_path, memory_reader):
    seen = []

    async def load(request):
        seen.append(request.headers["authorization"])
        return JSONResponse({"success": True})

    with running(Starlette(routes=[Route("/load_lora_adapter", load, methods=["POST"])])) as address:
        adapters = SglangAdapters(address, AdapterFolder(tmp_path / "adapters", 10**9), api_key="k")
        adapters.load(NAMES[0], *to_lora(memory_reader.reader, memory=memory_reader.memorize(TEXTS[:1])))
    assert seen == ["Bearer k"]
