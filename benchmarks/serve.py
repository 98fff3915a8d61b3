"""`aag serve` under load: speed, answers, memory, and what bad clients do to it. `python benchmarks/serve.py`

The reader is SmolLM2-135M with a random hypernetwork. Its answers make no sense and differ from document to document,
so that another document's adapter would be seen. Results are appended to ``serve.csv``.
"""

import csv
import itertools
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from time import perf_counter

import httpx2
import torch
from measure import machine
from peft import get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from aag_hf import AwakeningConfig, AwakeningModel, DocumentEncoder, HyperLoraConfig
from aag_hf.awakening import share_weights
from aag_hf.data import load_countries
from aag_hf.data.embedded import resolve_model
from aag_hf.hyperlora import memory_layers

RESULTS = Path(__file__).parent / "serve.csv"
DOCUMENTS, QUESTIONS, CLIENTS, PART = 20, 200, 8, 40
ANSWER_TOKENS, REQUESTS, EVERY = 8, 2000, 200
MALFORMED = [
    b"{",
    b"[]",
    b"\xff",
    b'{"messages": []}',
    b'{"messages": [{"role": "user", "content": "Who?"}], "temperature": 1}',
]

Case = tuple[str, str]
Row = dict[str, object]


def main() -> None:
    """Run all parts against one server."""
    torch.set_num_threads(2)
    model = random_reader()
    records = load_countries()["test"]
    texts = list(dict.fromkeys(record["ctxs"][0]["text"] for record in records))[:DOCUMENTS]
    cases = list(zip([record["question"] for record in records], itertools.cycle(texts)))[:QUESTIONS]
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        with serving(folder) as server:
            server.read(texts)
            rows, alone, together = clients_in_turns(server, cases)
            rows[1]["differing_answers"] = compare(model, cases, alone, together)
            rows += many_requests(server, cases)
            server.offend(cases[0], alone[0])
    with RESULTS.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        if not file.tell():
            writer.writeheader()
        writer.writerows(rows)


def clients_in_turns(server: "Server", cases: Sequence[Case]) -> tuple[list[Row], list[str], list[str]]:
    """Each part of the cases asked by one client, then by several, so that both meet the same machine.

    Returns:
        The rows, and the answers to one client and to several.
    """
    one, several = Asked(), Asked()
    for start in range(0, len(cases), PART):
        for asked, clients in ((one, 1), (several, CLIENTS)):
            asked.add(server.ask_all(cases[start : start + PART], clients))
    ratios = [a / b for a, b in zip(one.seconds, several.seconds)]
    rows = [row("one client", one, server), row(f"{CLIENTS} clients", several, server)]
    rows[1]["times_one_client"] = round(statistics.median(ratios), 2)
    print(f"{CLIENTS} clients: {rows[1]['times_one_client']} times the requests per second of one")
    return rows, one.answers, several.answers


def many_requests(server: "Server", cases: Sequence[Case]) -> list[Row]:
    """Short answers, until the memory of a server that leaks would show it."""
    rows = []
    for start in range(0, REQUESTS, EVERY):
        asked = Asked()
        asked.add(server.ask_all(list(itertools.islice(itertools.cycle(cases), EVERY)), CLIENTS, max_tokens=2))
        rows.append(row(f"answers of 2 tokens, request {start + 1} to {start + EVERY}", asked, server))
    return rows


@dataclass
class Asked:
    """What came of requests: each one's answer and latency, and the seconds that each part took."""

    answers: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(self, part: tuple[list[str], list[float], float]) -> None:
        self.answers += part[0]
        self.latencies += part[1]
        self.seconds.append(part[2])


def row(name: str, asked: Asked, server: "Server") -> Row:
    """What the table says of some requests."""
    hundredths = statistics.quantiles(asked.latencies, n=100)
    figures = {
        "case": name,
        "requests": len(asked.answers),
        "requests_per_second": round(len(asked.answers) / sum(asked.seconds), 2),
        "p50_ms": round(1000 * hundredths[49]),
        "p95_ms": round(1000 * hundredths[94]),
        "server_mb": server.megabytes(),
    }
    print("  ".join(f"{name} {value}" for name, value in figures.items()), flush=True)
    return {"date": date.today().isoformat(), **figures, "times_one_client": "", "differing_answers": "", **machine()}


def random_reader() -> AwakeningModel:
    """A memory reader that nobody trained, with an update of every document."""
    directory = resolve_model("embedded")
    base, tokenizer = AutoModelForCausalLM.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
    torch.manual_seed(3)
    adapter = HyperLoraConfig(
        task_type="CAUSAL_LM",
        hypernetwork="memory",
        r=8,
        # More would drown the model, less would leave answers alike.
        lora_alpha=4,
        feature_dim=base.config.hidden_size,
        hidden_dim=64,
        target_modules=memory_layers(base),
        init_weights=False,
    )
    encoder = DocumentEncoder.from_backbone(base, tokenizer).fit_statistics(["The capital of Nuvaria is Brelmont."] * 2)
    config = AwakeningConfig(directory, adapter_context="passages", answer_max_length=ANSWER_TOKENS)
    reader = get_peft_model(share_weights(base), adapter)
    return AwakeningModel(config, reader, tokenizer, document_encoder=encoder).eval()


@contextmanager
def serving(folder: str) -> Iterator["Server"]:
    """A server in a process of its own, on two threads."""
    command = [sys.executable, "-m", "aag_hf.cli.serve", "--model", folder, "--port", "0", "--threads", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().partition("/v1 ")[0]
        with httpx2.Client(base_url=address, timeout=60) as client:
            yield Server(client, process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


class Server:
    """A running server, and the ids of the documents it was sent."""

    def __init__(self, client: httpx2.Client, process: int):
        self.client, self.process = client, process
        self.ids: dict[str, str] = {}

    def read(self, texts: Sequence[str]) -> None:
        for text in texts:
            self.ids[text] = self.client.post("/v1/documents", json={"text": text}).json()["id"]

    def ask(self, case: Case, timeout: float = 600, **fields: object) -> httpx2.Response:
        question, text = case
        asked = {"messages": [{"role": "user", "content": question}], "document": self.ids[text], **fields}
        return self.client.post("/v1/chat/completions", json=asked, timeout=timeout)

    def ask_all(self, cases: Sequence[Case], clients: int, **fields: object) -> tuple[list[str], list[float], float]:
        """Ask all cases, so many at a time: the answers in their order, each one's seconds, and those of all."""

        def timed(case: Case) -> tuple[str, float]:
            start = perf_counter()
            response = self.ask(case, **fields).raise_for_status()
            return response.json()["choices"][0]["message"]["content"], perf_counter() - start

        start = perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            answers, latencies = zip(*pool.map(timed, cases))
        return list(answers), list(latencies), perf_counter() - start

    def megabytes(self) -> int:
        """What the server's process has in memory."""
        pages = int(Path(f"/proc/{self.process}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") // 10**6

    def offend(self, case: Case, answer: str) -> None:
        """Clients that leave, a question of 1 MB, malformed requests; a proper one is answered as before."""
        before = self.megabytes()
        for number in range(20):
            with suppress(httpx2.ReadTimeout):
                self.ask(case, timeout=0.02 * (1 + number % 10))
        responses = [self.ask(("w" * 2**20, case[1]))]
        for body in MALFORMED * 10:
            headers = {"Content-Type": "application/json"}
            responses.append(self.client.post("/v1/chat/completions", content=body, headers=headers))
        assert all(response.json()["error"]["message"] for response in responses)
        print("statuses of bad requests:", dict(Counter(response.status_code for response in responses)))
        assert self.ask(case).json()["choices"][0]["message"]["content"] == answer
        print(f"then answered as before; the server has {self.megabytes()} MB, before {before} MB")


def compare(model: AwakeningModel, cases: Sequence[Case], alone: Sequence[str], together: Sequence[str]) -> int:
    """How many answers differ from those asked alone; tells why each does."""
    different = [number for number in range(len(cases)) if alone[number] != together[number]]
    print(f"{len(set(alone))} different answers to {len(cases)} questions")
    print(f"{len(different)} of {len(cases)} answers differ from those asked alone")
    for number in different:
        question, text = cases[number]
        print(f"  {alone[number]!r} | {together[number]!r}: two best tokens apart by", end=" ")
        print(f"{margin(model, question, text, together[number]):.2g} where they part")
    return len(different)


@torch.no_grad()
def margin(model: AwakeningModel, question: str, text: str, other: str) -> float:
    """How far apart the logits of the two best tokens are, where the answer to a question parts from another."""
    inputs = model.reader_collator("none").generation_inputs([{"id": "0", "question": question}])
    options = {
        "max_new_tokens": ANSWER_TOKENS,
        "do_sample": False,
        "return_dict_in_generate": True,
        "output_logits": True,
    }
    output = model.reader.generate(**inputs, memory=model.memorize([text]), **options)
    ids = output.sequences[0, inputs["input_ids"].shape[1] :]
    for step, logits in enumerate(output.logits):
        if not other.startswith(model.tokenizer.decode(ids[: step + 1], skip_special_tokens=True).strip()):
            first, second = logits[0].topk(2).values.tolist()
            return first - second
    return float("nan")


if __name__ == "__main__":
    main()
