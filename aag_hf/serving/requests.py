"""What clients send, checked field by field, and the errors they get."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from starlette.requests import Request
from starlette.responses import JSONResponse

MOST_QUESTION_BYTES = 256 * 1024
MOST_DOCUMENT_BYTES = 16 * 1024**2
# A longer body is read to its end, so that its client reads the answer, but never kept. Beyond this it is cut off.
MOST_READ_BYTES = 64 * 1024**2
MOST_PROMPTS = 128

Body = TypeVar("Body", bound="Fields")


class ApiError(Exception):
    """An error in OpenAI's format.

    Args:
        status: The HTTP status.
        message: What is wrong and what to do.
        param: The field that is wrong.
        code: A name of the error for programs.
    """

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    @property
    def body(self) -> dict[str, Any]:
        """The error as OpenAI's clients read it."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The error as a response."""
        return JSONResponse(self.body, self.status, {"Retry-After": "1"} if self.status == 429 else None)


class Fields(BaseModel):
    """The fields of a body. Fields of ``null`` count as left out, unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, values: Any) -> Any:
        return (
            {name: value for name, value in values.items() if value is not None} if isinstance(values, dict) else values
        )


class DocumentFields(Fields):
    """``POST /v1/documents``."""

    text: str


class StreamOptions(Fields):
    """How an answer is streamed."""

    include_usage: bool = False


class AnswerFields(Fields):
    """What both kinds of questions have. Fields about sampling may be given if they ask for none."""

    model: str | None = None
    document: str | None = None
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    n: Literal[1] = 1
    # They change nothing about greedy answers.
    top_p: float | None = None
    seed: int | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None

    @field_validator("temperature", "frequency_penalty", "presence_penalty")
    @classmethod
    def _greedy(cls, value: float | None) -> float | None:
        if value not in (None, 0):
            raise ValueError(f"answers are greedy, and it is {value}: give 0, or leave it out")
        return value


class TextPart(Fields):
    """A part of a message."""

    type: Literal["text"]
    text: str


class Message(Fields):
    """A turn of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] = ""
    name: str | None = None

    @property
    def text(self) -> str:
        """All text of the message."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatFields(AnswerFields):
    """``POST /v1/chat/completions``."""

    messages: list[Message]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None

    @property
    def questions(self) -> list[str]:
        """The text of the user's last message, alone."""
        return [message.text for message in self.messages if message.role == "user"][-1:]


class CompletionFields(AnswerFields):
    """``POST /v1/completions``."""

    prompt: str | Annotated[list[str], Field(max_length=MOST_PROMPTS)]

    @property
    def questions(self) -> list[str]:
        """The prompts."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


async def read_body(request: Request, kind: type[Body], most_bytes: int) -> Body:
    """The body of a request.

    Args:
        request: The request.
        kind: What it must be.
        most_bytes: The most bytes of it.

    Raises:
        ApiError: It is something else.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        # Pages in a browser may send other types to any server without asking it first.
        raise ApiError(415, f"the content type is {media_type!r}: expected application/json.")
    body, size = bytearray(), 0
    async for piece in request.stream():
        size += len(piece)
        if size <= most_bytes:
            body += piece
        elif size > MOST_READ_BYTES:
            break
    if size > most_bytes:
        raise ApiError(413, f"the request has more than {most_bytes:,} bytes.", code="request_too_large")
    try:
        return kind.model_validate_json(bytes(body))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"])) or None
        message = first["msg"].removeprefix("Value error, ")
        raise ApiError(400, f"{message}." if field is None else f"{field}: {message}.", field) from None
