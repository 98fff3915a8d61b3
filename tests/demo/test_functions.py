"""What the page shows, without a browser."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from aag_hf.demo.adapter import grid, heat_map, strongest, update_norms, written_tokens
from aag_hf.demo.batch import answer_file, read_questions, write_answers
from aag_hf.demo.documents import forget, memory_of, recall, remember
from aag_hf.demo.readers import BASE, BASE_WITH_TEXT, OURS, STATIC, read
from aag_hf.errors import InputError
from aag_hf.hyperlora.layer import HyperLoraLinear
from aag_hf.questions.relevance import LITTLE

QUESTION = "What is the capital of Nuvaria?"
TEXT, OTHER = "The capital of Nuvaria is Brel.", "Ostmark pays with the ost, whose code is OSM."


def test_every_reader_answers_and_only_prompts_with_the_text_are_longer(documents_readers):
    readings = documents_readers.ask(QUESTION, TEXT)
    assert list(readings) == [BASE, BASE_WITH_TEXT, STATIC, OURS]
    tokens = {name: reading.prompt_tokens for name, reading in readings.items()}
    assert tokens[OURS] == tokens[BASE] < tokens[BASE_WITH_TEXT] == tokens[STATIC]
    assert readings[OURS].answer == documents_readers.model.generate([QUESTION], documents=TEXT).answers[0]
    assert readings[OURS].seconds > 0 and not readings[OURS].written
    assert all(reading.score <= 0 for reading in readings.values())
    assert {name for name, reading in readings.items() if reading.relevance is not None} == {OURS}


def test_the_base_model_has_no_adapter(question_readers):
    model = question_readers.model
    with model.reader.disable_adapter():
        expected = read(model, QUESTION).answer
    assert question_readers.ask(QUESTION)[BASE].answer == expected


def test_what_cannot_be_asked_is_said_in_a_line(documents_readers):
    with pytest.raises(InputError, match="there is no question"):
        documents_readers.ask("  ", TEXT)
    with pytest.raises(InputError, match="made from a document: give it a text"):
        documents_readers.ask(QUESTION, " ")
    with pytest.raises(InputError, match=r"3,000 characters: 2,000 are the most"):
        documents_readers.ask("x" * 3000, TEXT)


def naive_norms(model, given):
    """Of the update of each layer, from what it does to unit vectors."""
    base = model.reader.get_base_model()
    layers = {name: m for name, m in base.named_modules() if isinstance(m, HyperLoraLinear) and m.sites}
    network = base.hypernetworks.hyperlora_net["default"]
    made = network(given)
    norms = {}
    for name, layer in layers.items():
        site = layer.sites["default"]
        update = sum(a[site.position, 0].double() @ b[site.position, 0].double() for a, b in made[site.kind])
        norms[name] = float(torch.linalg.norm(update * layer.scaling["default"]))
    return norms


@pytest.mark.parametrize("kind", ["question_readers", "documents_readers"])
def test_norms_are_those_of_the_whole_updates(kind, request):
    readers = request.getfixturevalue(kind)
    reading = read(readers.model, QUESTION, TEXT)
    given = reading.features if reading.memory is None else reading.memory.tensor
    with torch.no_grad():
        expected = naive_norms(readers.model, given)
    norms = update_norms(readers.model, reading)
    assert norms.keys() == expected.keys() and max(norms.values()) > 0
    assert norms == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert heat_map(norms).axes


def test_a_reader_without_a_hypernetwork_has_no_norms(documents_readers):
    assert update_norms(documents_readers.static, read(documents_readers.static, QUESTION, TEXT)) == {}


def test_the_table_of_norms_tells_stacks_apart():
    names = ["encoder.block.0.layer.0.SelfAttention.q", "decoder.block.0.layer.0.SelfAttention.q"]
    names.append("decoder.block.10.layer.1.EncDecAttention.q")
    modules, layers, values = grid({name: float(i) for i, name in enumerate(names)})
    assert modules == ["SelfAttention.q", "EncDecAttention.q"] and layers == ["encoder 0", "decoder 0", "decoder 10"]
    assert values[0][:2] == [0.0, 1.0] and values[1][2] == 2.0 and values[1][0] != values[1][0]
    assert grid({"model.layers.3.mlp.down_proj": 1.0})[:2] == (["mlp.down_proj"], ["3"])


def test_the_tokens_are_the_text_and_their_strengths_the_gates(documents_readers):
    model, text = documents_readers.model, f"{TEXT} Über."
    tokens = written_tokens(model, text)
    assert "".join(piece for piece, _ in tokens) == text and tokens[0][1] is None
    gates = model.reader.gates(model.document_encoder.encode([text]))[0].mean(-1)
    assert [s for _, s in tokens[1:]] == pytest.approx((gates / gates.max()).tolist()[1:])


def test_the_strongest_pieces_are_words_each_once():
    pieces = [("The", None), (" ", 1.0), (" Brel", 0.5), (" is", 0.2), ("Brel", 0.9)]
    assert strongest(pieces, 2) == [("Brel", 0.9), ("is", 0.2)]


def test_each_question_is_answered_from_its_own_document_until_that_is_removed(documents_readers):
    model = documents_readers.model
    first = remember(model, (), TEXT)
    both = remember(model, first, OTHER, "other")
    assert [document.name for document in both] == [TEXT, "other"]
    assert both[0].tokens == len(TEXT) and len(first) == 1
    single = model.memorize([TEXT]).tensor
    assert torch.equal(memory_of(both).tensor[:1], single)
    assert torch.equal(memory_of(forget(both, "other")).tensor, single)
    reading = recall(model, both, QUESTION)
    assert reading.relevance == model.document_encoder.relevance(QUESTION, TEXT) > LITTLE
    assert recall(model, forget(both, TEXT), QUESTION).relevance < LITTLE
    assert torch.equal(reading.memory.tensor, single)
    assert reading.prompt_tokens == read(model, QUESTION, TEXT).prompt_tokens
    assert remember(model, first, TEXT + " It is old.", TEXT)[1].name == f"{TEXT} (2)"


def test_a_long_text_is_one_document_whose_passages_answer(documents_readers):
    model, filling = documents_readers.model, "Nothing else is known about this place, and nobody asks. " * 8
    kept = remember(model, (), f"{OTHER} {filling}\n\n{TEXT} {filling}", "long")
    assert len(kept) == 1 and len(memory_of(kept)) == 2
    assert recall(model, kept, QUESTION).memory.ids == ("long, passage 2",)
    assert forget(kept, "long") == ()


def test_documents_that_cannot_be_kept_are_refused(documents_readers, question_readers):
    model = documents_readers.model
    kept = remember(model, (), TEXT)
    for call, message in (
        (lambda: remember(model, kept, " "), "there is no text"),
        (lambda: remember(model, kept, TEXT), "remembered already"),
        (lambda: remember(question_readers.model, (), TEXT), "not made from documents"),
        (lambda: forget(kept, None), "no document is chosen"),
        (lambda: recall(model, (), QUESTION), "no document is remembered"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_a_name_of_a_file_is_a_text_and_no_file_is_read(documents_readers, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret")
    (document,) = remember(documents_readers.model, (), str(secret))
    assert document.text == str(secret)
    assert documents_readers.ask(QUESTION, str(secret))[STATIC].read == str(secret)


def test_files_of_questions_and_of_records_are_answered(question_readers, tmp_path):
    plain, table = tmp_path / "plain.txt", tmp_path / "table.csv"
    questions = [f"What is the capital of country {i}?" for i in range(20)]
    plain.write_text("\n\n".join(questions), encoding="utf-8-sig")
    seen = []
    answered = answer_file(question_readers, plain, None, lambda *done: seen.append(done))
    assert seen == [(0, 20), (16, 20), (20, 20)]
    assert [row["question"] for row in answered.rows] == questions
    assert answered.rows[3]["answer"] == question_readers.ask(questions[3])[OURS].answer
    table.write_text(f'question,answers\n{questions[3]},"[""{answered.rows[3]["answer"] or "x"}""]"\n')
    judged = answer_file(question_readers, table, None, lambda *_: None)
    assert "exact match" in judged.told() and isinstance(judged.rows[0]["right"], bool)
    write_answers(answered, tmp_path / "out.jsonl")
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == answered.rows


def test_records_are_answered_from_their_own_texts_or_from_the_memory(documents_readers, tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps({"id": "1", "question": QUESTION, "ctxs": [{"title": "", "text": TEXT}]}))
    model = documents_readers.model
    own = answer_file(documents_readers, path, None, lambda *_: None).rows[0]["answer"]
    assert own == documents_readers.ask(QUESTION, TEXT)[OURS].answer
    kept = remember(model, (), OTHER)
    other = answer_file(documents_readers, path, memory_of(kept), lambda *_: None).rows[0]["answer"]
    assert other == recall(model, kept, QUESTION).answer
    (tmp_path / "plain.txt").write_text(QUESTION)
    with pytest.raises(InputError, match=r"has no ctxs.*Or have the model remember a document before"):
        answer_file(documents_readers, tmp_path / "plain.txt", None, lambda *_: None)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"\n\n", "^empty.txt: holds no questions"),
        ("bytes.txt", b"\xff\xfe\x00", "^bytes.txt: is not text in UTF-8"),
        ("bad.jsonl", b'{"id": "1"}', "^bad.jsonl, line 1: field 'question'"),
        ("image.png", b"x", "^image.png: unknown kind of file"),
    ],
)
def test_files_that_cannot_be_read_are_named_without_their_folder(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_questions(tmp_path / name)


def test_calls_from_threads_answer_as_alone(documents_readers):
    texts = [f"The capital of Nuvaria is {name}." for name in ("Brel", "Ost", "Quito", "Lima")]
    alone = [documents_readers.ask(QUESTION, text)[OURS].answer for text in texts]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda text: documents_readers.ask(QUESTION, text)[OURS].answer, texts * 3))
    assert together == alone * 3
