"""A stand-in for the Hub: as much of its HTTP interface as uploads, downloads and cards of models need."""

import base64
import hashlib
import json
import re
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from huggingface_hub import constants

COMMIT = "0" * 39 + "1"


class HubServer(ThreadingHTTPServer):
    """Keeps repositories in memory: file contents by path, by repository name."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, bytes]] = defaultdict(dict)
        self.validated_cards: list[str] = []
        self.branches: dict[str, set[str]] = defaultdict(lambda: {"main"})
        self.commit_messages: dict[str, list[str]] = defaultdict(list)

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
            card = json.loads(body)
            if errors := faults(card["content"], card["repoType"]):
                return self._send(400, "\n".join(errors).encode(), "text/plain")
            self.server.validated_cards.append(card["content"])
            self._json({"errors": [], "warnings": []})
        elif parts[4:5] == ["preupload"]:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self._json({"files": files})
        elif parts[4:5] == ["branch"]:
            self.server.branches["/".join(parts[2:4])].add(parts[5])
            self._json({})
        elif parts[4:5] == ["commit"]:
            repository = "/".join(parts[2:4])
            if parts[5] not in self.server.branches[repository]:
                return self._missing("RevisionNotFound")
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.repositories[repository][line["value"]["path"]] = content
                elif line["key"] == "header":
                    self.server.commit_messages[repository].append(line["value"]["summary"])
            self._json({"commitUrl": f"{self.server.url}/{repository}/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self._missing()

    def do_GET(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").removeprefix("datasets/").split("/")
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


def faults(content: str, repo_type: str) -> list[str]:
    """What the Hub refuses in a card's metadata, of what ours could get wrong."""
    card = yaml.safe_load(content.split("---\n")[1])
    identifier = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")
    found = [f'"{key}" must be text' for key in ("library_name", "license") if not isinstance(card.get(key, ""), str)]
    for key in ("base_model", "datasets"):
        values = card.get(key, [])
        for value in values if isinstance(values, list) else [values]:
            if not identifier.fullmatch(value):
                found.append(f'"{key}" with value "{value}" is not valid. Use an id of the Hub.')
    if card.get("base_model_relation", "adapter") not in ("adapter", "finetune", "merge", "quantized"):
        found.append('"base_model_relation" is unknown')
    if "base_model_relation" in card and "base_model" not in card:
        found.append('"base_model_relation" without "base_model"')
    if card.get("pipeline_tag", "question-answering") not in ("question-answering", "feature-extraction"):
        found.append('"pipeline_tag" is not among those used here')
    for key in ("tags", "metrics", "task_categories"):
        if not all(isinstance(value, str) for value in card.get(key, [])):
            found.append(f'"{key}" must be a list of texts')
    for model in card.get("model-index", []):
        for result in model["results"]:
            measured = [result["task"]["type"], result["dataset"]["type"], result["dataset"]["name"]]
            if not all(measured) or not all("type" in m and "value" in m for m in result["metrics"]):
                found.append('"model-index" lacks a task, data set or metric')
    for config in card.get("configs", []):
        for file in config["data_files"]:
            if not re.fullmatch(r"\w+(\.\w+)*", file["split"]):
                found.append(f'split "{file["split"]}" is not a name')
    if repo_type == "dataset" and "license" not in card:
        found.append('"license" is missing')
    return found


def _etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@pytest.fixture(scope="session")
def hub():
    """A running [`HubServer`]."""
    server = HubServer()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def online(hub, monkeypatch, tmp_path_factory):
    """The server as the Hub of this process."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    return hub
