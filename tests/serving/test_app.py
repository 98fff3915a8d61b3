"""What clients of the server rely on: their own document's answer, one error a mistake, and that it goes on."""

import gc
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from aag_hf.serving import app, batching
from aag_hf.serving.store import document_id

TEXTS = [f"The capital of {place} is {place[::-1] * 3}, and its money the {place.lower()}." for place in "ABCDEFGH"]
QUESTIONS = [f"What is the {noun} of {place}?" for noun in ("capital", "money") for place in "ABCDEFGH"]


def chat(question, **fields):
    return {"messages": [{"role": "user", "content": question}], **fields}


def answer_of(response):
    assert response.status_code == 200, response.text
    choice = response.json()["choices"][0]
    return choice["text"] if "text" in choice else choice["message"]["content"]


def events(response):
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@pytest.fixture(scope="module")
def alone(memory_reader):
    """The answer to each question about each document, asked alone."""
    return {
        (question, text): memory_reader.generate([question], documents=[text]).answers[0]
        for question in QUESTIONS[:4]
        for text in TEXTS
    }


def test_every_client_gets_its_own_documents_answer(served, memory_reader, alone):
    # Another document's answer would be seen.
    assert len({alone[QUESTIONS[0], text] for text in TEXTS}) > 6
    sizes = []

    def work(inner, jobs):
        sizes.append(len(jobs))
        return inner(jobs)

    with served(memory_reader, work=work) as client, ThreadPoolExecutor(16) as clients:
        sent = clients.map(lambda text: client.post("/v1/documents", json={"text": text}).json()["id"], TEXTS)
        ids = dict(zip(TEXTS, sent))

        def ask(case):
            question, text = case
            named = {"document": ids[text]} if len(question) % 2 else {"model": f"aag:document:{ids[text]}"}
            return answer_of(client.post("/v1/chat/completions", json=chat(question, **named)))

        assert dict(zip(alone, clients.map(ask, alone))) == alone
    assert max(sizes) > 1


def test_a_text_is_read_once_however_many_clients_send_it(served, memory_reader):
    read = []

    def work(inner, jobs):
        read.extend(job.text for job in jobs)
        return inner(jobs)

    with served(memory_reader, work=work) as client, ThreadPoolExecutor(8) as clients:
        sent = list(clients.map(lambda _: client.post("/v1/documents", json={"text": TEXTS[0]}).json(), range(8)))
        listed = client.get("/v1/documents").json()["data"]
    assert read == TEXTS[:1]
    assert listed == [sent[0]] and all(one == sent[0] for one in sent)
    assert sent[0]["id"] == document_id(TEXTS[0])


def test_pieces_of_a_stream_are_the_answer(served, memory_reader, alone):
    (question, text), answer = next(iter(alone.items()))
    with served(memory_reader) as client:
        document = client.post("/v1/documents", json={"text": text}).json()["id"]
        fields = {"stream": True, "document": document}
        told = events(client.post("/v1/chat/completions", json=chat(question, **fields)))
        assert "".join(piece["choices"][0]["delta"]["content"] for piece in told) == answer
        assert len(told) > 2 and told[-1]["choices"][0]["finish_reason"] in ("stop", "length")
        assert ["aag" in piece["choices"][0] for piece in told] == [False] * (len(told) - 1) + [True]
        prompts = {"prompt": QUESTIONS[:3], "stream_options": {"include_usage": True}, **fields}
        *told, last = events(client.post("/v1/completions", json=prompts))
        texts = ["", "", ""]
        for piece in told:
            texts[piece["choices"][0]["index"]] += piece["choices"][0]["text"]
        assert texts == [alone[asked, text] for asked in QUESTIONS[:3]]
        assert last["choices"] == [] and last["usage"]["completion_tokens"] > 3


def test_each_answer_tells_its_score_and_whether_its_document_is_about_the_question(
    served, memory_reader, question_reader
):
    question = QUESTIONS[0]
    with served(memory_reader) as client:
        for text in TEXTS[:2]:
            document = client.post("/v1/documents", json={"text": text}).json()["id"]
            (choice,) = client.post("/v1/chat/completions", json=chat(question, document=document)).json()["choices"]
            expected = memory_reader.generate([question], documents=[text]).scores[0]
            assert choice["aag"]["score"] == pytest.approx(expected, abs=1e-4)
            assert choice["aag"]["relevance"] == memory_reader.document_encoder.relevance(question, text)
    with served(question_reader) as client:
        (choice,) = client.post("/v1/chat/completions", json=chat(question)).json()["choices"]
        assert choice["aag"]["score"] <= 0 and choice["aag"]["relevance"] is None


def test_the_last_message_of_the_user_is_the_question_and_max_tokens_end_its_answer(served, memory_reader, alone):
    (question, text), answer = next(iter(alone.items()))
    turns = [
        ("system", "Be brief."),
        ("user", "Who?"),
        ("assistant", "I."),
        ("user", [{"type": "text", "text": question}]),
    ]
    with served(memory_reader) as client:
        document = client.post("/v1/documents", json={"text": text}).json()["id"]
        asked = {"messages": [{"role": role, "content": content} for role, content in turns], "document": document}
        assert answer_of(client.post("/v1/chat/completions", json=asked)) == answer
        response = client.post("/v1/chat/completions", json=asked | {"max_completion_tokens": 2, "temperature": 0})
        assert answer.startswith(answer_of(response).rstrip("\N{REPLACEMENT CHARACTER}"))
        assert response.json()["usage"]["completion_tokens"] == 2
        assert response.json()["choices"][0]["finish_reason"] == "length"
        both = client.post("/v1/completions", json={"prompt": QUESTIONS[:2], "document": document}).json()
        assert [choice["text"] for choice in both["choices"]] == [alone[asked, text] for asked in QUESTIONS[:2]]


def test_questions_make_the_adapters_of_a_reader_of_questions(served, question_reader):
    with served(question_reader) as client, ThreadPoolExecutor(8) as clients:
        answers = clients.map(lambda q: answer_of(client.post("/v1/completions", json={"prompt": q})), QUESTIONS)
        assert list(answers) == [question_reader.generate([question]).answers[0] for question in QUESTIONS]
        for path, body in (("documents", {"text": TEXTS[0]}), ("chat/completions", chat("Who?", document="a" * 32))):
            refused = client.post(f"/v1/{path}", json=body)
            assert refused.status_code == 400 and "not made from documents" in refused.json()["error"]["message"]


MISTAKES = [
    ("chat/completions", b"{", 400, "Invalid JSON"),
    ("chat/completions", b"\xff\xfe", 400, "Invalid JSON"),
    ("chat/completions", b"[" * 100_000, 400, "Invalid JSON"),
    ("chat/completions", b"[]", 400, "Input should be an object"),
    ("chat/completions", {}, 400, "messages: Field required"),
    ("chat/completions", {"messages": []}, 400, "none is of the user"),
    ("chat/completions", {"messages": [{"role": "user", "content": 3}]}, 400, "messages.0.content"),
    ("chat/completions", chat("  ", document="{id}"), 400, "the question is empty"),
    ("chat/completions", chat("Who?"), 400, "name one by its id"),
    ("chat/completions", chat("Who?", document="f" * 32), 404, "no document 'ffff"),
    ("chat/completions", chat("Who?", document="../../etc/passwd"), 404, "no document '../../etc"),
    ("chat/completions", chat("Who?", model="gpt-4o"), 404, "no model 'gpt-4o': expected 'reader'"),
    ("chat/completions", chat("Who?", model="aag:document:" + "f" * 32, document="{id}"), 400, "different documents"),
    ("chat/completions", chat("Who?", tools=[]), 400, "tools: Extra inputs are not permitted"),
    ("chat/completions", chat("Who?", temperature=0.7), 400, "temperature: answers are greedy, and it is 0.7"),
    ("chat/completions", chat("Who?", stream="yes"), 400, "stream: Input should be a valid boolean"),
    ("chat/completions", chat("Who?", n=2), 400, "n: Input should be 1"),
    ("chat/completions", chat("Who?", max_tokens=0), 400, "max_tokens: Input should be greater"),
    ("chat/completions", chat("w" * 2**20, document="{id}"), 413, "more than 262,144 bytes"),
    ("chat/completions", chat("w" * 2**17, document="{id}"), 400, "131,072 characters; the reader reads 256 tokens"),
    (
        "chat/completions",
        chat("w" * 300, document="{id}", stream=True),
        400,
        "tokens with its prompt; the reader",
    ),
    ("completions", {"prompt": []}, 400, "the question is empty"),
    ("completions", {"prompt": ["Who?"] * 129}, 400, "prompt"),
    ("completions", {"prompt": [[1, 2]]}, 400, "prompt"),
    ("documents", {"text": ""}, 400, "is empty"),
    ("documents", {"text": "w" * 40_000}, 400, "more than max_tokens=32768: split it"),
    ("documents", {"text": "w" * 2**24}, 413, "more than 16,777,216 bytes"),
    ("documents", b'{"text": "\\ud800"}', 400, "Invalid JSON"),
    ("nothing", {}, 404, "Not Found"),
]


def test_a_mistake_is_one_clear_error_and_the_server_goes_on(served, memory_reader, alone):
    (question, text), answer = next(iter(alone.items()))
    with served(memory_reader) as client:
        document = client.post("/v1/documents", json={"text": text}).json()["id"]
        for path, body, status, said in [*MISTAKES, *MISTAKES[:5] * 10]:
            content = body if isinstance(body, bytes) else json.dumps(body).replace("{id}", document).encode()
            headers = {"Content-Type": "application/json"}
            response = client.post(f"/v1/{path}", content=content, headers=headers)
            error = response.json()["error"]
            assert (response.status_code, said in error["message"]) == (status, True), (path, said, response.text[:300])
            assert error["type"] == "invalid_request_error"
        form = {"Content-Type": "text/plain"}
        assert client.post("/v1/documents", content=b'{"text": "a b"}', headers=form).status_code == 415
        assert client.get("/v1/completions").status_code == 405
        assert answer_of(client.post("/v1/chat/completions", json=chat(question, document=document))) == answer
        assert client.get("/health").json() == {"status": "ok"}
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["reader"]


def test_a_long_question_does_not_spoil_the_batch_it_waits_in(served, memory_reader, alone):
    (question, text), answer = next(iter(alone.items()))
    with served(memory_reader) as client, ThreadPoolExecutor(8) as clients:
        document = client.post("/v1/documents", json={"text": text}).json()["id"]
        asked = [question, "w" * 400] * 4
        responses = list(
            clients.map(lambda q: client.post("/v1/completions", json={"prompt": q, "document": document}), asked)
        )
        assert [response.status_code for response in responses] == [200, 400] * 4
        assert {answer_of(response) for response in responses[::2]} == {answer}


def test_the_question_of_a_client_that_left_is_dropped_before_it_begins(served, memory_reader, monkeypatch, caplog):
    begun, go_on, seen = threading.Event(), threading.Event(), []
    dropped, drop = threading.Semaphore(0), app._drop
    monkeypatch.setattr(app, "_drop", lambda questions: (drop(questions), dropped.release()))

    def work(inner, jobs):
        seen.extend(job.text for job in jobs)
        if jobs[0].text == "Who is first?":
            begun.set()
            assert go_on.wait(30)
        return inner(jobs)

    with served(memory_reader, max_batch_size=1, work=work) as client, ThreadPoolExecutor(1) as clients:
        document = client.post("/v1/documents", json={"text": TEXTS[0]}).json()["id"]
        first = clients.submit(client.post, "/v1/chat/completions", json=chat("Who is first?", document=document))
        assert begun.wait(30)
        for stream in (False, True):
            with pytest.raises(httpx2.ReadTimeout):
                client.post(
                    "/v1/chat/completions", json=chat("Who left?", document=document, stream=stream), timeout=0.2
                )
            assert dropped.acquire(timeout=30)
        go_on.set()
        assert first.result().status_code == 200
        assert client.post("/v1/chat/completions", json=chat("Who is last?", document=document)).status_code == 200
    assert seen == [TEXTS[0], "Who is first?", "Who is last?"]
    # asyncio tells of errors that nobody looked at once their owner is gone.
    gc.collect()
    assert not caplog.records


def test_an_unexpected_error_is_told_and_the_server_goes_on(served, memory_reader, capfd):
    def work(inner, jobs):
        if any(job.text == "Who breaks it?" for job in jobs):
            raise RuntimeError("secret of the machine")
        return inner(jobs)

    with served(memory_reader, work=work) as client, ThreadPoolExecutor(6) as clients:
        document = client.post("/v1/documents", json={"text": TEXTS[0]}).json()["id"]
        asked = ["Who?", "Who breaks it?"] * 3
        statuses = clients.map(
            lambda q: client.post("/v1/completions", json={"prompt": q, "document": document}), asked
        )
        responses = list(statuses)
    assert [response.status_code for response in responses] == [200, 500] * 3
    assert responses[1].json()["error"]["type"] == "server_error" and "secret" not in responses[1].text
    assert "secret of the machine" in capfd.readouterr().err


def test_too_many_that_wait_are_sent_away(served, memory_reader, monkeypatch):
    monkeypatch.setattr(batching, "MOST_WAITING", 2)
    with served(memory_reader) as client:
        document = client.post("/v1/documents", json={"text": TEXTS[0]}).json()["id"]
        response = client.post("/v1/completions", json={"prompt": QUESTIONS, "document": document})
        assert response.status_code == 429 and "wait already" in response.json()["error"]["message"]
        # What still waits of the first request is dropped or answered in a moment.
        for _ in range(100):
            response = client.post("/v1/completions", json={"prompt": "Who?", "document": document})
            if response.status_code != 429:
                break
            time.sleep(0.1)
        assert response.status_code == 200


def test_documents_asked_about_longest_ago_make_room(served, memory_reader):
    size = memory_reader.memorize(TEXTS[:1]).tensor.nbytes
    with served(memory_reader, max_document_bytes=2 * size) as client:

        def post(text):
            return client.post("/v1/documents", json={"text": text}).json()["id"]

        first, second = post(TEXTS[0]), post(TEXTS[1])
        assert client.post("/v1/chat/completions", json=chat("Who?", document=first)).status_code == 200
        third = post(TEXTS[2])
        assert [document["id"] for document in client.get("/v1/documents").json()["data"]] == [first, third]
        forgotten = client.post("/v1/chat/completions", json=chat("Who?", document=second))
        assert forgotten.status_code == 404 and "forgotten to make room" in forgotten.json()["error"]["message"]
        assert client.delete(f"/v1/documents/{first}").json() == {"id": first, "object": "document", "deleted": True}
        assert client.delete(f"/v1/documents/{first}").status_code == 404
    with served(memory_reader, max_document_bytes=size - 1) as client:
        full = client.post("/v1/documents", json={"text": TEXTS[0]})
        assert full.status_code == 507 and "document_store_gb" in full.json()["error"]["message"]


def test_the_key_and_the_servers_own_name_are_asked_for(served, memory_reader):
    with served(memory_reader, api_key="s3cret", hosts=frozenset({"127.0.0.1"})) as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}):
            refused = client.get("/v1/models", headers=headers)
            assert refused.status_code == 401 and refused.json()["error"]["code"] == "invalid_api_key"
        key = {"Authorization": "Bearer s3cret"}
        assert client.get("/v1/models", headers=key).status_code == 200
        assert client.get("/health").status_code == 200
        assert client.get("/v1/models", headers=key | {"Host": "evil.example:8000"}).status_code == 421
