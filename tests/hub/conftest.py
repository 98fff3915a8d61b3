"""A stand-in for the Hub: as much of its HTTP interface as uploads, downloads and cards of models need."""

import base64
import hashlib
import json
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

COMMIT = "0" * 39 + "1"


class HubServer(ThreadingHTTPServer):
    """Keeps repositories in memory: file contents by path, by repository name."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, bytes]] = defaultdict(dict)
        self.validated_cards: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts = urlsplit(self.path).path.strip("/").split("/")
        if parts == ["api", "repos", "create"]:
            wanted = json.loads(body)
            name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
            self.server.repositories[name]
            self._json({"url": f"{self.server.url}/{name}", "name": name, "id": name})
        elif parts == ["api", "validate-yaml"]:
            self.server.validated_cards.append(json.loads(body)["content"])
            self._json({"errors": [], "warnings": []})
        elif parts[4:5] == ["preupload"]:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self._json({"files": files})
        elif parts[4:5] == ["commit"]:
            repository = "/".join(parts[2:4])
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.repositories[repository][line["value"]["path"]] = content
            self._json({"commitUrl": f"{self.server.url}/{repository}/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self._missing()

    def do_GET(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            repository = "/".join(parts[2:4])
            if repository not in self.server.repositories:
                return self._missing("RepoNotFound")
            files = self.server.repositories[repository]
            if parts[4:5] == ["tree"]:
                return self._json(
                    [{"type": "file", "path": p, "size": len(c), "oid": _etag(c)} for p, c in files.items()]
                )
            return self._json({"id": repository, "sha": COMMIT, "siblings": [{"rfilename": path} for path in files]})
        if parts[2:3] == ["resolve"]:
            content = self.server.repositories.get("/".join(parts[:2]), {}).get("/".join(parts[4:]))
            if content is None:
                return self._missing("EntryNotFound")
            return self._send(200, content, "application/octet-stream", ETag=f'"{_etag(content)}"')
        return self._missing()

    do_HEAD = do_GET

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), "application/json")

    def _missing(self, code: str = "EntryNotFound") -> None:
        self._send(404, b"", "text/plain", **{"X-Error-Code": code})

    def _send(self, status: int, content: bytes, kind: str, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", COMMIT)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@pytest.fixture(scope="session")
def hub():
    """A running [`HubServer`]."""
    server = HubServer()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
