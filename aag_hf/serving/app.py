"""The OpenAI API over a saved model, with documents."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from concurrent.futures import CancelledError
from functools import partial
from typing import Any, Literal, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from aag_hf.errors import InputError
from aag_hf.hyperlora import DocumentMemory
from aag_hf.serving.answering import Answer, Answerer, Document, Question
from aag_hf.serving.batching import Busy, Workers
from aag_hf.serving.guard import HEALTH, Guard
from aag_hf.serving.replies import DONE, Reply, event
from aag_hf.serving.requests import (
    MOST_DOCUMENT_BYTES,
    MOST_QUESTION_BYTES,
    AnswerFields,
    ApiError,
    ChatFields,
    CompletionFields,
    DocumentFields,
    read_body,
)
from aag_hf.serving.store import DocumentStore, StoredDocument, document_id

DOCUMENT_MODEL = re.compile(r"aag:document:(.*)", re.DOTALL)
Result = TypeVar("Result")
Endpoint = Literal["chat.completion", "text_completion"]


def make_app(
    answerer: Answerer,
    workers: Workers,
    name: str,
    max_document_bytes: int,
    api_key: str | None = None,
    hosts: frozenset[str] | None = None,
) -> Starlette:
    """The server as an ASGI application.

    Args:
        answerer: Tells what the model reads.
        workers: Do the work.
        name: What the model is called.
        max_document_bytes: The most that the memories of documents take together.
        api_key: As in [`~aag_hf.serving.guard.Guard`].
        hosts: As there.
    """
    api = _Api(answerer, workers, name, DocumentStore(max_document_bytes))
    routes = [
        Route(HEALTH, api.health),
        Route("/v1/models", api.models),
        Route("/v1/chat/completions", api.chat, methods=["POST"]),
        Route("/v1/completions", api.completions, methods=["POST"]),
        Route("/v1/documents", api.documents),
        Route("/v1/documents", api.read_document, methods=["POST"]),
        Route("/v1/documents/{id}", api.forget_document, methods=["DELETE"]),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, api_key=api_key, hosts=hosts)],
        exception_handlers={
            kind: _answer_error for kind in (ApiError, InputError, Busy, ClientDisconnect, HTTPException, Exception)
        },
    )


class _Api:
    def __init__(self, answerer: Answerer, workers: Workers, name: str, store: DocumentStore):
        self.answerer, self.workers, self.name, self.store = answerer, workers, name, store
        self.created = int(time.time())
        self.reading: dict[str, asyncio.Task[StoredDocument]] = {}

    async def health(self, request: Request) -> Response:
        if not self.workers.alive:
            raise ApiError(503, "the thread that answers has ended: start the server again.")
        return JSONResponse({"status": "ok"})

    async def models(self, request: Request) -> Response:
        model = {"id": self.name, "object": "model", "created": self.created, "owned_by": "aag"}
        return JSONResponse({"object": "list", "data": [model]})

    async def documents(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_described(document) for document in self.store]})

    async def read_document(self, request: Request) -> Response:
        if not self.answerer.reads_documents:
            raise ApiError(400, "this model's adapter is not made from documents: ask it without.")
        text = (await read_body(request, DocumentFields, MOST_DOCUMENT_BYTES)).text
        identifier = document_id(text)
        document = self.store.get(identifier)
        if document is None:
            if identifier not in self.reading:
                self.reading[identifier] = asyncio.create_task(self._read(identifier, text))
            # The client may leave; others may wait for the same document.
            document = await asyncio.shield(self.reading[identifier])
        return JSONResponse(_described(document))

    async def _read(self, identifier: str, text: str) -> StoredDocument:
        try:
            memory = await asyncio.wrap_future(self.workers.submit(Document(text)))
            document = StoredDocument(identifier, memory, int(time.time()))
            try:
                self.store.add(document)
            except InputError as error:
                raise ApiError(507, str(error), "text", "document_store_full") from None
            return document
        finally:
            del self.reading[identifier]

    async def forget_document(self, request: Request) -> Response:
        identifier = request.path_params["id"]
        if not self.store.remove(identifier):
            raise _unknown(identifier)
        return JSONResponse({"id": identifier, "object": "document", "deleted": True})

    async def chat(self, request: Request) -> Response:
        asked = await read_body(request, ChatFields, MOST_QUESTION_BYTES)
        if not asked.questions:
            raise ApiError(400, "messages: none is of the user: the last of them is the question.", "messages")
        return await self._answer(request, asked, "chat.completion", asked.max_completion_tokens or asked.max_tokens)

    async def completions(self, request: Request) -> Response:
        asked = await read_body(request, CompletionFields, MOST_QUESTION_BYTES)
        return await self._answer(request, asked, "text_completion", asked.max_tokens)

    async def _answer(
        self, request: Request, asked: ChatFields | CompletionFields, endpoint: Endpoint, max_tokens: int | None
    ) -> Response:
        texts = asked.questions
        if not texts or not all(text.strip() for text in texts):
            raise ApiError(400, "the question is empty.", "prompt" if endpoint == "text_completion" else "messages")
        memory = self._memory(asked)
        most = min(max_tokens or self.answerer.most_tokens, self.answerer.most_tokens)
        questions = [Question(text, memory, most) for text in texts]
        reply = Reply(endpoint, asked.model or self.name)
        if asked.stream:
            return await self._stream(request, questions, reply, asked.stream_options.include_usage)
        try:
            answers = asyncio.gather(*[asyncio.wrap_future(self.workers.submit(question)) for question in questions])
            return JSONResponse(reply.whole(await _unless_gone(request, answers)))
        finally:
            _drop(questions)

    def _memory(self, asked: AnswerFields) -> DocumentMemory | None:
        """The memory of the document that a request names, if it does."""
        named = DOCUMENT_MODEL.fullmatch(asked.model or "")
        if asked.model not in (None, self.name) and named is None:
            raise ApiError(
                404, f"no model {asked.model!r}: expected {self.name!r} or aag:document:ID.", "model", "model_not_found"
            )
        identifier = asked.document or (named and named[1])
        if named is not None and named[1] != identifier:
            raise ApiError(400, "model and document name different documents: name one.", "document")
        if not identifier:
            if self.answerer.needs_documents:
                raise ApiError(400, "document: this model answers from a document: name one by its id.", "document")
            return None
        if not self.answerer.reads_documents:
            raise ApiError(400, "this model's adapter is not made from documents: ask it without.", "document")
        document = self.store.get(identifier)
        if document is None:
            raise _unknown(identifier)
        return document.memory

    async def _stream(
        self, request: Request, questions: Sequence[Question], reply: Reply, include_usage: bool
    ) -> Response:
        loop, events = asyncio.get_running_loop(), asyncio.Queue[tuple[int, str | None]]()

        def tell(number: int, text: str | None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(events.put_nowait, (number, text))

        def tell_end(number: int, _: object) -> None:
            tell(number, None)

        try:
            for number, question in enumerate(questions):
                question.on_text = partial(tell, number)
                question.result.add_done_callback(partial(tell_end, number))
                self.workers.submit(question)
            # An error before the first word still has a status.
            first = await _unless_gone(request, events.get())
            if first[1] is None:
                questions[first[0]].result.result()
        except BaseException:
            _drop(questions)
            raise
        pieces = _pieces(first, events, questions, reply, include_usage)
        return StreamingResponse(pieces, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


async def _pieces(
    first: tuple[int, str | None],
    events: asyncio.Queue[tuple[int, str | None]],
    questions: Sequence[Question],
    reply: Reply,
    include_usage: bool,
) -> AsyncIterator[str]:
    answers: dict[int, Answer] = {}
    number, text = first
    try:
        while True:
            if text is None:
                answers[number] = questions[number].result.result()
                yield event(reply.piece(number, "", answers[number]))
            else:
                yield event(reply.piece(number, text))
            if len(answers) == len(questions):
                break
            number, text = await events.get()
        if include_usage:
            yield event(reply.last(list(answers.values())))
        yield DONE
    except Exception as error:
        yield event(_as_api_error(error).body)
    finally:
        _drop(questions)


def _drop(questions: Sequence[Question]) -> None:
    """Nobody waits for their answers any more. What has begun or ended stays as it is."""
    for question in questions:
        question.result.cancel()


async def _unless_gone(request: Request, awaited: Awaitable[Result]) -> Result:
    """The result of `awaited`, which is cancelled when the client leaves.

    Raises:
        ClientDisconnect: The client left.
    """
    result, gone = asyncio.ensure_future(awaited), asyncio.create_task(_client_leaves(request))
    try:
        await asyncio.wait({result, gone}, return_when=asyncio.FIRST_COMPLETED)
        if result.done():
            return result.result()
        raise ClientDisconnect
    finally:
        gone.cancel()
        result.cancel()
        # An error that nobody looks at is printed by asyncio.
        result.add_done_callback(lambda ended: ended.cancelled() or ended.exception())


async def _client_leaves(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _described(document: StoredDocument) -> dict[str, Any]:
    return {"id": document.id, "object": "document", "created": document.created, "bytes": document.bytes}


def _unknown(identifier: str) -> ApiError:
    said = f"no document {identifier!r:.80}: it is unknown, or was forgotten to make room: post its text again."
    return ApiError(404, said, "document", "document_not_found")


async def _answer_error(request: Request, error: Exception) -> Response:
    return _as_api_error(error).response()


def _as_api_error(error: BaseException) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, f"{error.detail}.")
    if isinstance(error, InputError):
        return ApiError(400, str(error))
    if isinstance(error, Busy):
        return ApiError(429, str(error), code="busy")
    if isinstance(error, CancelledError):
        return ApiError(503, "the server is ending.")
    if isinstance(error, ClientDisconnect):
        return ApiError(499, "the client left.")
    return ApiError(500, f"{type(error).__name__}: the server's own error; its terminal says more.")
