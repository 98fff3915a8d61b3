"""Questions answered by a vLLM server, with adapters made here."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

import httpx2

from aag_hf.awakening.decoding import first_line
from aag_hf.errors import InputError
from aag_hf.serving.answering import UNFINISHED, Answer, Document, Question
from aag_hf.serving.batching import MOST_WAITING, Batcher, Busy
from aag_hf.serving.preparing import Preparation, Preparer
from aag_hf.serving.requests import ApiError

# What a model's own generation_config may ask of vLLM, and the readers do without.
GREEDY = {"temperature": 0, "repetition_penalty": 1, "frequency_penalty": 0, "presence_penalty": 0, "min_tokens": 0}


def check_server(url: str, api_key: str | None = None) -> None:
    """Find out whether a vLLM server answers.

    Raises:
        InputError: None does.
    """
    try:
        httpx2.get(f"{_base(url)}/v1/models", headers=_headers(api_key), timeout=10).raise_for_status()
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise InputError(f"vllm is {url}: no vLLM server answers there ({error}): start it first.") from None


class VllmAnswers:
    """Takes the same jobs as a [`~aag_hf.serving.batching.Batcher`]; vLLM answers the questions.

    Args:
        url: Of the vLLM server.
        preparer: Makes adapters and prompts.
        batcher: Runs the preparer's work.
        api_key: What vLLM asks for, if it does.
    """

    def __init__(self, url: str, preparer: Preparer, batcher: Batcher, api_key: str | None = None):
        self.preparer, self.batcher = preparer, batcher
        self._tasks: set[asyncio.Task[None]] = set()
        self._client = httpx2.AsyncClient(
            base_url=_base(url),
            headers=_headers(api_key),
            timeout=httpx2.Timeout(None, connect=10),
            limits=httpx2.Limits(max_connections=MOST_WAITING),
        )

    @property
    def alive(self) -> bool:
        """Whether adapters can be made."""
        return self.batcher.alive

    def submit(self, job: Question | Document) -> Future[Any]:
        """Let a job be done; returns its `result`. A question whose `result` is cancelled is given up.

        Raises:
            Busy: As many wait as may.
        """
        if isinstance(job, Document):
            return self.batcher.submit(job)
        if len(self._tasks) >= MOST_WAITING:
            raise Busy(f"{len(self._tasks)} requests wait already: try again later.")
        task = asyncio.get_running_loop().create_task(self._do(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        job.result.add_done_callback(lambda result: task.cancel() if result.cancelled() else None)
        return job.result

    async def _do(self, question: Question) -> None:
        tell: Callable[[], None]
        try:
            tell = partial(question.result.set_result, await self._answer(question))
        except Exception as error:
            tell = partial(question.result.set_exception, error)
        if question.result.set_running_or_notify_cancel():
            tell()

    async def _answer(self, question: Question) -> Answer:
        name, in_use = self.preparer.name(question), self.preparer.folder.in_use
        in_use[name] += 1
        try:
            prepared = await asyncio.wrap_future(self.batcher.submit(Preparation(question, name)))
            for other in prepared.left:
                await self._client.post("/v1/unload_lora_adapter", json={"lora_name": other})
            asked = {
                "model": name,
                "prompt": prepared.prompt,
                "max_tokens": question.max_tokens,
                "stop_token_ids": sorted(self.preparer.answerer.ends),
                "stream": True,
                "stream_options": {"include_usage": True, "continuous_usage_stats": True},
                **GREEDY,
            }
            text, tokens, ended = "", 0, False
            async for piece in self._pieces(asked):
                tokens = piece["usage"]["completion_tokens"]
                for choice in piece["choices"]:
                    text += choice["text"]
                    ended = ended or choice["finish_reason"] == "stop"
                question.tell(first_line(text).rstrip(UNFINISHED))
                if "\n" in text.lstrip():
                    ended = True
                    break
            question.tell(first_line(text))
            relevance = self.preparer.answerer.relevance(question)
            return Answer(first_line(text), ended, len(prepared.prompt), tokens, relevance=relevance)
        except httpx2.HTTPError as error:
            raise ApiError(502, f"vLLM does not answer: {type(error).__name__} {error}.", code="vllm") from None
        finally:
            in_use[name] -= 1
            if not in_use[name]:
                del in_use[name]

    async def _pieces(self, asked: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        async with self._client.stream("POST", "/v1/completions", json=asked) as response:
            if response.status_code != 200:
                said = (await response.aread()).decode(errors="replace")
                raise ApiError(502, f"vLLM refused with status {response.status_code}: {said:.500}", code="vllm")
            async for line in response.aiter_lines():
                data = line.removeprefix("data: ")
                if data != line and data != "[DONE]":
                    piece = json.loads(data)
                    if "error" in piece:
                        raise ApiError(502, f"vLLM stopped: {piece['error'].get('message')}", code="vllm")
                    yield piece


def _base(url: str) -> str:
    return url.rstrip("/").removesuffix("/v1")


def _headers(api_key: str | None) -> dict[str, str]:
    return {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
