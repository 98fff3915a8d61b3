"""`aag serve --vllm` in front of a server that reads adapters as vLLM does, and applies them with PEFT.

vLLM itself is asked in test_vllm.py.
"""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx2
import pytest
import torch
from peft import PeftModel
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route
from transformers import AutoModelForCausalLM

from aag_hf import AwakeningModel
from aag_hf.errors import InputError
from aag_hf.serving.adapter_folder import AdapterFolder
from aag_hf.serving.adapter_names import adapter_folder_name
from aag_hf.serving.answering import Answerer
from aag_hf.serving.app import make_app
from aag_hf.serving.batching import Batcher
from aag_hf.serving.preparing import Preparer
from aag_hf.serving.through_vllm import VllmAnswers, check_server

TEXTS = [f"The capital of {place} is {place[::-1] * 3}, and its money the {place.lower()}." for place in "ABCDEF"]
QUESTIONS = [f"What is the {noun} of {place}?" for noun in ("capital", "money") for place in "ABCD"]


class StandIn:
    """The part of vLLM's API that is used. Unknown fields, and adapters that are not whole, are errors."""

    FIELDS = {"model", "prompt", "max_tokens", "stop_token_ids", "stream", "stream_options", "temperature"}
    FIELDS |= {"repetition_penalty", "frequency_penalty", "presence_penalty", "min_tokens"}

    def __init__(self, base, tokenizer, adapters):
        self.base, self.tokenizer, self.adapters = base, tokenizer, adapters
        self.asked, self.unloaded, self.left = [], [], threading.Event()
        self.hangs = False
        routes = [
            Route("/v1/models", lambda _: JSONResponse({"object": "list", "data": []})),
            Route("/v1/completions", self.complete, methods=["POST"]),
            Route("/v1/unload_lora_adapter", self.unload, methods=["POST"]),
        ]
        self.app = Starlette(routes=routes)

    async def complete(self, request):
        body = await request.json()
        assert set(body) == self.FIELDS and body["temperature"] == 0
        self.asked.append(body["model"])
        path = self.adapters / adapter_folder_name(body["model"])
        if not path.is_dir():
            return JSONResponse({"error": {"message": "LoRA adapter does not exist"}}, 404)
        ids = self.generate(path, body)
        return StreamingResponse(self.pieces(ids, body), media_type="text/event-stream")

    def generate(self, path, body):
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(self.base), path)
        prompt = torch.tensor([body["prompt"]])
        ends = body["stop_token_ids"]
        return model.generate(
            input_ids=prompt, max_new_tokens=body["max_tokens"], do_sample=False, eos_token_id=ends, pad_token_id=0
        )[0, prompt.shape[1] :].tolist()

    async def pieces(self, ids, body):
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        reason = "stop" if ids[-1] in body["stop_token_ids"] else "length"
        try:
            for number, part in enumerate((text[: len(text) // 2], text[len(text) // 2 :])):
                choice = {"index": 0, "text": part, "finish_reason": reason if number else None}
                yield f"data: {json.dumps({'choices': [choice], 'usage': {'completion_tokens': len(ids)}})}\n\n"
                while self.hangs:
                    await asyncio.sleep(0.01)
            yield "data: [DONE]\n\n"
        except BaseException:
            self.left.set()
            raise

    async def unload(self, request):
        self.unloaded.append((await request.json())["lora_name"])
        return JSONResponse("done")


@pytest.fixture
def fronted(running, tiny_llama_dir, tiny_tokenizer, tmp_path):
    """A client of a server in front of a stand-in, and the stand-in."""

    @contextmanager
    def front(model, max_bytes=10**9):
        stand_in = StandIn(tiny_llama_dir, tiny_tokenizer, tmp_path / "adapters")
        answerer = Answerer(model)
        preparer = Preparer(answerer, AdapterFolder(tmp_path / "adapters", max_bytes), "reader")
        with running(stand_in.app) as vllm, Batcher(preparer.work, 8) as batcher:
            check_server(f"{vllm}/v1")
            app = make_app(answerer, VllmAnswers(f"{vllm}/v1", preparer, batcher), "reader", 10**9)
            with running(app) as address, httpx2.Client(base_url=address, timeout=60) as client:
                yield client, stand_in

    return front


def answer_of(response):
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["text"]


def test_every_question_gets_its_own_documents_answer_though_few_adapters_fit(fronted, memory_reader, tmp_path):
    alone = {(q, t): memory_reader.generate([q], documents=[t]).answers[0] for q in QUESTIONS[:3] for t in TEXTS}
    # Another document's answer would be seen.
    assert len({alone[QUESTIONS[0], text] for text in TEXTS}) > 4
    with fronted(memory_reader, max_bytes=8_000) as (client, stand_in), ThreadPoolExecutor(2) as clients:
        ids = {text: client.post("/v1/documents", json={"text": text}).json()["id"] for text in TEXTS}
        named = {"prompt": QUESTIONS[0], "document": ids[TEXTS[0]]}
        (choice,) = client.post("/v1/completions", json=named).json()["choices"]
        relevance = memory_reader.document_encoder.relevance(QUESTIONS[0], TEXTS[0])
        assert choice["aag"] == {"score": None, "relevance": relevance}

        def ask(case):
            return answer_of(client.post("/v1/completions", json={"prompt": case[0], "document": ids[case[1]]}))

        assert dict(zip(alone, clients.map(ask, alone))) == alone
    assert len(set(stand_in.asked)) == len(TEXTS)
    assert stand_in.unloaded and set(stand_in.unloaded) <= set(stand_in.asked)
    assert len(list((tmp_path / "adapters").iterdir())) < len(TEXTS)


def test_questions_make_their_own_adapters(fronted, question_reader):
    expected = [question_reader.generate([question]).answers[0] for question in QUESTIONS]
    with fronted(question_reader) as (client, stand_in), ThreadPoolExecutor(8) as clients:
        asked = QUESTIONS * 2
        answers = list(clients.map(lambda q: answer_of(client.post("/v1/completions", json={"prompt": q})), asked))
        assert answers == expected * 2
        streamed = client.post("/v1/completions", json={"prompt": QUESTIONS[0], "stream": True}).text
        told = [json.loads(line.removeprefix("data: ")) for line in streamed.split("\n\n")[:-2]]
        assert "".join(piece["choices"][0]["text"] for piece in told) == expected[0]
        assert told[-1]["choices"][0]["finish_reason"] in ("stop", "length")
        whole = client.post("/v1/completions", json={"prompt": QUESTIONS[0], "max_tokens": 2}).json()
        assert whole["usage"]["completion_tokens"] == 2 and whole["usage"]["prompt_tokens"] > 10
    assert set(stand_in.asked) == set(stand_in.asked[: len(asked)]) and len(set(stand_in.asked)) == len(QUESTIONS)


def test_a_mistake_reaches_nobody_and_what_vllm_refuses_is_told(fronted, memory_reader, tmp_path):
    with fronted(memory_reader) as (client, stand_in):
        document = client.post("/v1/documents", json={"text": TEXTS[0]}).json()["id"]
        for prompt, fields, status, said in [
            ("w" * 400, {"document": document}, 400, "the reader reads 256"),
            ("Who?", {}, 400, "name one by its id"),
            ("Who?", {"document": "f" * 32}, 404, "no document"),
        ]:
            refused = client.post("/v1/completions", json={"prompt": prompt, **fields})
            assert refused.status_code == status and said in refused.json()["error"]["message"]
        assert stand_in.asked == []
        stand_in.adapters = tmp_path / "nowhere"
        refused = client.post("/v1/completions", json={"prompt": "Who?", "document": document})
        assert refused.status_code == 502
        assert "vLLM refused with status 404" in refused.json()["error"]["message"]
        assert "LoRA adapter does not exist" in refused.json()["error"]["message"]
        stand_in.adapters = tmp_path / "adapters"
        assert client.post("/v1/completions", json={"prompt": "Who?", "document": document}).status_code == 200


def test_vllm_stops_writing_for_a_client_that_left(fronted, question_reader):
    with fronted(question_reader) as (client, stand_in):
        stand_in.hangs = True
        with pytest.raises(httpx2.ReadTimeout):
            client.post("/v1/completions", json={"prompt": QUESTIONS[0]}, timeout=1)
        assert stand_in.left.wait(30)
        stand_in.hangs = False
        assert answer_of(client.post("/v1/completions", json={"prompt": QUESTIONS[1]}))


def test_what_vllm_cannot_serve_is_refused_at_the_start(memory_reader, question_reader, tmp_path):
    for url in ("http://127.0.0.1:9", "nonsense"):
        with pytest.raises(InputError, match=f"vllm is {url}: no vLLM server answers there"):
            check_server(url)
    folder = AdapterFolder(tmp_path / "adapters", 1)
    parts = (memory_reader.config, memory_reader.reader, memory_reader.tokenizer)
    for encoders, said in [
        ({}, "no hypernetwork"),
        (
            {"document_encoder": memory_reader.document_encoder, "question_encoder": question_reader.question_encoder},
            "adapters from question and document",
        ),
    ]:
        with pytest.raises(InputError, match=said):
            Preparer(Answerer(AwakeningModel(*parts, **encoders)), folder, "reader")
