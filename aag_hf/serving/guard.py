"""Who may ask a server."""

import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from aag_hf.serving.requests import ApiError

HEALTH = "/health"


class Guard:
    """Lets requests through that have the key, and name a host of the server.

    Args:
        app: What they are let through to.
        api_key: The key. Without one, everybody may ask.
        hosts: The names by which the server is asked; by default any. A page in a browser can have its own name point
            to this machine, and then reads what this machine alone should.
    """

    def __init__(self, app: ASGIApp, api_key: str | None = None, hosts: frozenset[str] | None = None):
        self.app, self.api_key, self.hosts = app, api_key, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with an error, or pass the request on."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (self.app if refusal is None else refusal.response())(scope, receive, send)

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.hosts is not None and _name(host) not in self.hosts:
            return ApiError(421, f"this server is not called {host!r}.")
        if self.api_key is None or scope["path"] == HEALTH:
            return None
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(key.strip().encode(), self.api_key.encode()):
            return None
        return ApiError(401, "wrong or missing API key: send it as Authorization: Bearer KEY.", code="invalid_api_key")


def _name(host: str) -> str:
    """A host without its port."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).strip("[]").lower()
