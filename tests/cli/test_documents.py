"""Readers whose adapter is made from documents, through the commands: train, evaluate, memorize, ask, export."""

import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from aag_hf import AwakeningModel, AwakeningPipeline, DocumentMemory
from aag_hf.awakening.aggregation import DraftOptions
from aag_hf.cli.main import main
from aag_hf.data import load_countries, read_records, write_records
from aag_hf.errors import InputError
from aag_hf.evaluation import evaluate_reader

TRAINER = ["--max_steps", "3", "--per_device_train_batch_size", "4", "--report_to", "none", "--save_strategy", "no"]
TRAINER += ["--disable_tqdm", "true", "--learning_rate", "0.02"]
TEXTS = ["The capital of Nuvaria is Brel.", "Ostmark pays with the ost, whose code is OSM."]


@pytest.fixture(scope="module")
def train_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    write_records([record | {"generated_context": "from memory"} for record in load_countries()["train"][:40]], path)
    return str(path)


def train(base, train_file, output, *options):
    arguments = ["--model_name_or_path", base, "--train_file", train_file, "--output_dir", str(output)]
    return main(["train", *arguments, "--adapter_from", "document", "--r", "4", *TRAINER, *options])


@pytest.fixture(scope="module")
def reader(tiny_llama_dir, train_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "reader"
    assert train(tiny_llama_dir, train_file, folder) == 0
    return str(folder)


def answers(model, texts, **given):
    return model.generate(["What is the capital of Nuvaria?"] * len(texts), **given).answers


def test_it_trains_reloads_and_answers_from_documents_it_reads_once(reader):
    model = AwakeningModel.from_pretrained(reader)
    memory = model.memorize(TEXTS, ids=["a", "b"])
    assert memory.ids == ("a", "b") and memory.tensor.shape[1] == 1
    assert answers(model, TEXTS, memory=memory) == answers(model, TEXTS, documents=TEXTS)
    assert answers(model, TEXTS, documents=TEXTS[0]) == answers(model, TEXTS, memory=memory[0])
    ask = AwakeningPipeline(model)
    ask.read(TEXTS[0])
    alone = answers(model, TEXTS[:1], documents=TEXTS[:1])[0]
    assert ask("What is the capital of Nuvaria?")["answer"] == alone
    assert answers(AwakeningModel.from_pretrained(reader), TEXTS, documents=TEXTS) == answers(
        model, TEXTS, documents=TEXTS
    )


def test_of_several_documents_each_question_is_answered_from_its_own(reader):
    model = AwakeningModel.from_pretrained(reader)
    ask = AwakeningPipeline(model)
    memory = ask.read(*TEXTS)
    assert len(memory) == 2 and memory.texts == tuple(TEXTS)
    questions = ["What is the code of the ost?", "", "What is the capital of Nuvaria?"]
    alone = model.generate([questions[0], questions[2]], memory=memory[[1, 0]]).answers
    assert [result["answer"] for result in ask(questions)] == [alone[0], None, alone[1]]
    with pytest.raises(InputError, match="nothing to read"):
        ask.read()


def test_of_a_long_text_each_question_is_answered_from_its_own_passage(reader, tmp_path, capsys):
    model = AwakeningModel.from_pretrained(reader)
    filling = "Nothing else is known about this place, and nobody asks. " * 8
    long = f"{TEXTS[0]} {filling}\n\n{TEXTS[1]} {filling}"
    (tmp_path / "long.txt").write_text(long)
    ask = AwakeningPipeline(model)
    assert len(ask.read(long)) == 1
    memory = ask.read(tmp_path / "long.txt", by_passage=True)
    assert memory.ids == ("long.txt, passage 1", "long.txt, passage 2")
    question = "What is the code of the ost?"
    told = ask(question)
    assert told["document"] == "long.txt, passage 2"
    assert told["answer"] == model.generate([question], documents=[memory.texts[1]]).answers[0]
    asked = ["ask", "--model", reader, "--document", str(tmp_path / "long.txt"), "--question"]
    assert main([*asked, question, "--json", "true"]) == 0
    assert json.loads(capsys.readouterr().out)["document"] == "long.txt, passage 2"
    (tmp_path / "long.txt").write_text(long * 1000)
    assert main([*asked, question]) == 2
    assert "more than max_tokens=32768: split it into several texts." in capsys.readouterr().err


def test_an_answer_tells_its_document_and_is_none_if_that_is_not_relevant(reader, capsys):
    ask = AwakeningPipeline(AwakeningModel.from_pretrained(reader))
    questions = ["What is the capital of Nuvaria?", "Who wrote Hamlet?"]
    names = ask.read(*TEXTS).ids
    assert [result["document"] for result in ask(questions)] == [names[0], None]
    ask.read(TEXTS[0])
    told = ask(questions)
    assert [result["document"] for result in told] == [names[0], names[0]]
    assert told[0]["relevance"] > 0.5 > 0.1 > told[1]["relevance"]
    kept = [result["answer"] for result in ask(questions, min_relevance=0.1)]
    assert kept == [told[0]["answer"], None] != [told[0]["answer"], told[1]["answer"]]
    command = ["ask", "--model", reader, "--document", TEXTS[0], "--question", questions[1]]
    assert main(command) == 0
    assert "is hardly about this question" in capsys.readouterr().err
    assert main([*command, "--min_relevance", "0.1"]) == 0
    assert capsys.readouterr().out == "(no answer)\n"
    assert main(["ask", "--model", reader, "--document", *TEXTS, "--question", questions[1]]) == 0
    assert "answered without a document" in capsys.readouterr().err
    with pytest.raises(InputError, match="min_relevance is 2: expected a number from 0 to 1"):
        ask(questions, min_relevance=2)


def test_training_changes_what_documents_say(reader):
    model = AwakeningModel.from_pretrained(reader)
    network = model.reader.get_base_model().hypernetworks.hyperlora_net["default"]
    assert network.query["down_proj_64x32"].weight.abs().max() > 0
    assert (network.input_rms_down_proj_64x32 != 1).all()


@pytest.mark.parametrize("keep", ["true", "false"])
def test_it_learns_from_a_teacher_that_has_the_document_in_its_prompt(tiny_llama_dir, train_file, tmp_path, keep):
    lora = ["--method", "lora", "--context", "passages"]
    assert train(tiny_llama_dir, train_file, tmp_path / "teacher", *lora) == 0
    taught = [
        "--dev_file",
        train_file,
        "--teacher",
        str(tmp_path / "teacher"),
        "--teacher_cache_dir",
        str(tmp_path / "cache"),
    ]
    assert train(tiny_llama_dir, train_file, tmp_path / "reader", *taught, "--keep_lower_states", keep) == 0
    figures = json.loads((tmp_path / "reader" / "config.json").read_text())["training_figures"]
    assert figures["eval_distillation_kl"] > 0


@pytest.mark.parametrize("base", ["tiny_llama_dir", "tiny_t5_dir"])
def test_the_generated_context_can_be_the_adapters_document(base, train_file, tmp_path, request):
    base = request.getfixturevalue(base)
    assert train(base, train_file, tmp_path / "reader", "--adapter_context", "generated") == 0
    model = AwakeningModel.from_pretrained(tmp_path / "reader")
    assert evaluate_reader(model, read_records(train_file)[:6])["count"] == 6
    with pytest.raises(InputError, match="model has no generator"):
        model.generate(["Who?"])


def test_the_memories_of_drafts_become_one_adapter(reader, train_file):
    model = AwakeningModel.from_pretrained(reader)
    drafts = [[{"text": text, "score": -1.0} for text in (*TEXTS, " ")] for _ in range(2)]
    records = [r | {"generated_contexts": own} for r, own in zip(read_records(train_file), drafts)]
    options = DraftOptions(num_contexts=2, aggregation="memory")
    asked = [record["question"] for record in records]
    mean = model.memorize(TEXTS).sum([0.5, 0.5])
    told = [row["prediction"] for row in evaluate_reader(model, records, drafts=options)["predictions"]]
    assert told == model.generate(asked, memory=mean).answers
    for aggregation in ("vote", "marginal"):
        several = DraftOptions(num_contexts=3, aggregation=aggregation)
        assert evaluate_reader(model, records, drafts=several)["count"] == 2
    with pytest.raises(InputError, match="controls replace"):
        evaluate_reader(model, records, drafts=options, control="another_document")


def test_question_and_document_make_the_adapter_together_and_a_stopped_run_goes_on(
    tiny_llama_dir, train_file, tmp_path
):
    from safetensors.torch import load_file

    both = ["--adapter_from", "both", "--feature_dim", "8", "--save_strategy", "steps", "--save_steps", "2"]
    assert train(tiny_llama_dir, train_file, tmp_path / "whole", *both, "--max_steps", "4") == 0
    model = AwakeningModel.from_pretrained(tmp_path / "whole")
    assert set(model.reader.active_adapters) == {"default", "question"}
    output = model.generate(["Who?"], documents=TEXTS[:1])
    assert output.features is not None
    records = read_records(train_file)[4:10]
    result = evaluate_reader(model, records)
    for control in ("shuffled", "another_document"):
        assert evaluate_reader(model, records, control=control)["count"] == result["count"] == 6
    # Both come back from a checkpoint: as good as trained in one go.
    stopped = tmp_path / "resumed.checkpoints"
    stopped.mkdir()
    for name in ("checkpoint-2", "manifest.json"):
        (tmp_path / "whole.checkpoints" / name).rename(stopped / name)
    assert train(tiny_llama_dir, train_file, tmp_path / "resumed", *both, "--max_steps", "4") == 0
    for name in ("reader/adapter_model.safetensors", "reader/question/adapter_model.safetensors"):
        ours, theirs = load_file(tmp_path / "resumed" / name), load_file(tmp_path / "whole" / name)
        for key, tensor in theirs.items():
            torch.testing.assert_close(ours[key], tensor)


def test_evaluation_has_controls_of_documents(reader, train_file, tmp_path):
    controls = ["another_document", "no_document", "added_document", "document_in_prompt", "off", "shuffled"]
    command = ["evaluate", "--model", reader, "--input", train_file, "--max_samples", "9", "--controls", *controls]
    assert main([*command, "--output_dir", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "results.json").read_text())
    names = ["none", *controls[:-1]]
    assert [row["control"] for row in rows] == names
    tokens = {row["control"]: row["input_tokens"] for row in rows}
    assert tokens["document_in_prompt"] > tokens["none"] == tokens["another_document"]


def test_an_evaluation_holds_the_memories_of_some_questions_at_a_time(reader, train_file, monkeypatch):
    model, records = AwakeningModel.from_pretrained(reader), read_records(train_file)[3:10]
    whole = evaluate_reader(model, records, control="added_document")
    most = []
    monkeypatch.setattr("aag_hf.evaluation.evaluator._HELD", 3)
    generate = model.generate
    monkeypatch.setattr(
        model, "generate", lambda *args, **options: most.append(len(options["memory"])) or generate(*args, **options)
    )
    parts = evaluate_reader(model, records, control="added_document")
    assert most == [3, 3, 1]
    for figure in ("predictions", "exact_match", "input_tokens"):
        assert parts[figure] == whole[figure]


def test_memories_are_written_asked_and_not_made_again(reader, tmp_path, capsys):
    (tmp_path / "texts.jsonl").write_text(
        "\n".join(json.dumps({"id": f"d{i}", "text": t}) for i, t in enumerate(TEXTS))
    )
    command = ["memorize", "--model", reader, "--input", str(tmp_path / "texts.jsonl")]
    output = str(tmp_path / "memories.safetensors")
    assert main([*command, "--output", output]) == 0
    memory = DocumentMemory.from_pretrained(output)
    assert memory.ids == ("d0", "d1")
    torch.testing.assert_close(memory.tensor, AwakeningModel.from_pretrained(reader).memorize(TEXTS).tensor)
    capsys.readouterr()
    assert main([*command, "--output", output]) == 0
    assert "finished before" in capsys.readouterr().err
    (tmp_path / "one.txt").write_text(TEXTS[0])
    for name in ("one.txt", "renamed.txt"):
        (tmp_path / "one.txt").rename(tmp_path / name)
        read = [*command[:-1], str(tmp_path / name), "--output", str(tmp_path / "one.safetensors")]
        assert main(read) == (0 if name == "one.txt" else 2)
    assert "first_id was 'one.txt', is 'renamed.txt'" in capsys.readouterr().err
    question = "What is the capital of Nuvaria?"
    expected = {}
    model = AwakeningModel.from_pretrained(reader)
    for name, read in {"first": memory[0], "sum": memory.sum()}.items():
        expected[name] = model.generate([question], memory=read).answers[0]
    given = {
        "first": [["--memory", output], ["--document", TEXTS[0]], ["--document", *TEXTS]],
        "sum": [["--memory", output, "--sum", "true"], ["--document", *TEXTS, "--sum", "true"]],
    }
    for name, options in given.items():
        for option in options:
            capsys.readouterr()
            assert main(["ask", "--model", reader, "--json", "true", "--question", question, *option]) == 0
            assert json.loads(capsys.readouterr().out)["answer"] == expected[name]


def test_a_documents_adapter_is_exported_as_plain_lora(reader, tiny_llama_dir, tmp_path):
    (tmp_path / "text.txt").write_text(TEXTS[0])
    command = ["export", "--model", reader, "--document", str(tmp_path / "text.txt")]
    assert main([*command, "--output_dir", str(tmp_path / "lora")]) == 0
    assert main([*command, "--output_dir", str(tmp_path / "small"), "--rank", "2"]) == 0
    model = AwakeningModel.from_pretrained(reader)
    ids = torch.tensor([[5, 9, 17]])
    expected = model.reader(input_ids=ids, memory=model.memorize(TEXTS[:1])).logits
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_llama_dir), tmp_path / "lora").eval()
    torch.testing.assert_close(plain(input_ids=ids).logits, expected)
    assert json.loads((tmp_path / "small" / "adapter_config.json").read_text())["r"] == 2


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["ask", "--question", "Who?"], "is made from a document: pass documents, or a memory"),
        (["ask", "--question", "Who?", "--document", "missing.txt"], "missing.txt: no such file"),
        (["ask", "--question", "Who?", "--memory", "missing.safetensors"], "missing.safetensors: no such file"),
        (["ask", "--question", "Who?", "--document", "a b", "--memory", "m"], "name one of them"),
        (["ask", "--question", "Who?", "--document", " "], "document 0 is empty"),
        (["export", "--question", "Who?", "--output_dir", "out"], "is made from documents: name one as document"),
        (["memorize", "--input", "missing.jsonl", "--output", "m.safetensors"], "missing.jsonl: no such file"),
        (["memorize", "--input", "missing.jsonl", "--output", "m.bin"], "ends in .safetensors"),
        (["memorize", "--input", "rows.jsonl", "--output", "m.safetensors"], "rows.jsonl, line 2: has no text"),
        (["memorize", "--input", "short.jsonl", "--output", "m.safetensors"], "short.jsonl, document 'b' has 1 tokens"),
        (["memorize", "--input", "latin.txt", "--output", "m.safetensors"], "latin.txt: is not text in UTF-8"),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(reader, command, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n{"title": "two"}\n')
    (tmp_path / "short.jsonl").write_text('{"id": "a", "text": "one two"}\n{"id": "b", "text": "a"}\n')
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    assert main([command[0], "--model", reader, *command[1:]]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_readers_that_cannot_be_given_documents_say_so(reader, tiny_llama_dir, train_file, tmp_path, capsys):
    assert train(tiny_llama_dir, train_file, tmp_path / "student", "--teacher", reader) == 2
    assert "takes documents itself: a teacher must be" in capsys.readouterr().err
    assert train(tiny_llama_dir, train_file, tmp_path / "plain", "--method", "lora") == 0
    AwakeningModel.from_pretrained(reader).memorize(TEXTS).save_pretrained(tmp_path)
    ask = ["ask", "--model", str(tmp_path / "plain"), "--question", "Who?", "--memory", str(tmp_path)]
    assert main(ask) == 2
    assert "is not made from documents" in capsys.readouterr().err


def test_three_questions_and_two_memories_are_refused(reader):
    model = AwakeningModel.from_pretrained(reader)
    with pytest.raises(InputError, match="3 questions and 2 memories"):
        model.generate(["Who?"] * 3, memory=model.memorize(TEXTS))
    with pytest.raises(InputError, match="pass one of them"):
        model.generate(["Who?"], memory=model.memorize(TEXTS[:1]), documents=TEXTS[:1])


def test_records_without_a_document_are_named(tiny_llama_dir, train_file, tmp_path, capsys):
    assert train(tiny_llama_dir, train_file, tmp_path / "reader", "--adapter_context", "compressed") == 2
    assert "has no compressed_context" in capsys.readouterr().err
