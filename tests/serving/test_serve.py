"""``aag serve``: a process that answers until it is told to end, and what it refuses before a model is loaded."""

import os
import re
import signal
import socket
import subprocess
import sys

import httpx2
import pytest

from aag_hf.cli import serve
from aag_hf.cli.main import main


def test_it_serves_a_saved_model_until_it_is_told_to_end(memory_reader, tmp_path):
    memory_reader.save_pretrained(tmp_path / "reader")
    command = [sys.executable, "-m", "aag_hf.cli.serve", "--model", str(tmp_path / "reader"), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--threads", "1", "--api_key", "k"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        said = process.stdout.readline()
        found = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/v1 serves reader; Ctrl-C ends it\n", said)
        assert found, said
        with httpx2.Client(base_url=found[1], headers={"Authorization": "Bearer k"}, timeout=60) as client:
            text = "The capital of Nuvaria is Brel."
            document = client.post("/v1/documents", json={"text": text}).json()["id"]
            asked = {"messages": [{"role": "user", "content": "Who?"}], "document": document}
            answer = client.post("/v1/chat/completions", json=asked).json()["choices"][0]["message"]["content"]
        assert answer == memory_reader.generate(["Who?"], documents=[text]).answers[0]
    finally:
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=30)[1]
    assert process.returncode == 130 and "Traceback" not in errors


def test_what_cannot_be_served_is_refused_before_a_model_is_loaded(monkeypatch, capsys):
    monkeypatch.delenv("AAG_API_KEY", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for options, said in [
            (["--port", port], f"127.0.0.1:{port}: nothing can listen there"),
            (["--port", "70000"], "port is 70000: expected 0 to 65535"),
            (["--host", "0.0.0.0"], "host is 0.0.0.0, where others may ask: set AAG_API_KEY or api_key"),
            (["--host", "no.such.host.invalid", "--api_key", "k"], "nothing can listen there"),
            (["--max_batch_size", "0"], "max_batch_size is 0"),
            (["--document_store_gb", "0"], "document_store_gb is 0"),
            (["--port", "0"], "missing: neither a folder here nor a model"),
        ]:
            assert main(["serve", "--model", "missing", *options]) == 2
            assert said in capsys.readouterr().err.splitlines()[-1]


def test_missing_packages_are_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", "--model", "missing"]) == 2
    assert "uvicorn is not installed: run `pip install 'aag-hf[serve]'`" in capsys.readouterr().err


def test_the_key_can_stand_in_the_environment(monkeypatch):
    monkeypatch.setitem(os.environ, "AAG_API_KEY", "k")
    assert serve.ServeOptions(model="m", host="0.0.0.0").api_key == "k"
    assert not serve.ServeOptions(model="m", host="0.0.0.0").is_of_this_machine


@pytest.mark.parametrize("reads", ["passages", "compressed"])
def test_readers_of_contexts_that_no_request_has_are_refused(reads, memory_reader, monkeypatch):
    from aag_hf.errors import InputError
    from aag_hf.serving.answering import Answerer

    monkeypatch.setattr(memory_reader.config, "context", reads)
    with pytest.raises(InputError, match=f"reads {reads} beside each question"):
        Answerer(memory_reader)
