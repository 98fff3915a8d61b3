"""Answers in the shapes of OpenAI's API."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import uuid4

from aag_hf.serving.answering import Answer

DONE = "data: [DONE]\n\n"


def event(value: dict[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(value)}\n\n"


@dataclass(frozen=True)
class Reply:
    """The reply to one request, whole or in pieces.

    Args:
        endpoint: A chat's completion, or a text's.
        model: The name that the client asked.
    """

    endpoint: Literal["chat.completion", "text_completion"]
    model: str
    id: str = field(default_factory=lambda: f"aag-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def in_chat(self) -> bool:
        """Whether answers are turns of a chat."""
        return self.endpoint == "chat.completion"

    def whole(self, answers: Sequence[Answer]) -> dict[str, Any]:
        """All answers at once."""
        choices = [self._choice(number, answer.text, answer) for number, answer in enumerate(answers)]
        return self._object(choices) | {"usage": usage(answers)}

    def piece(self, number: int, text: str, answer: Answer | None = None) -> dict[str, Any]:
        """A further piece of an answer; with `answer`, the last one."""
        return self._object([self._choice(number, text, answer, whole=False)], whole=False)

    def last(self, answers: Sequence[Answer]) -> dict[str, Any]:
        """The piece after all others, which tells their tokens."""
        return self._object([], whole=False) | {"usage": usage(answers)}

    def _choice(self, number: int, text: str, answer: Answer | None, whole: bool = True) -> dict[str, Any]:
        if self.in_chat:
            said: dict[str, Any] = {"message" if whole else "delta": {"role": "assistant", "content": text}}
        else:
            said = {"text": text}
        told: dict[str, Any] = {} if answer is None else {"aag": _confidence(answer)}
        reason = None if answer is None else _reason(answer)
        return {"index": number, **said, "logprobs": None, "finish_reason": reason, **told}

    def _object(self, choices: list[dict[str, Any]], whole: bool = True) -> dict[str, Any]:
        kind = self.endpoint if whole or not self.in_chat else "chat.completion.chunk"
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}


def usage(answers: Sequence[Answer]) -> dict[str, int]:
    """The tokens of some answers."""
    read, written = sum(answer.prompt_tokens for answer in answers), sum(answer.tokens for answer in answers)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _confidence(answer: Answer) -> dict[str, float | None]:
    """What OpenAI's API has no field for; its clients pass over what they do not know."""
    return {"score": answer.score, "relevance": answer.relevance}


def _reason(answer: Answer) -> str:
    return "stop" if answer.ended else "length"
