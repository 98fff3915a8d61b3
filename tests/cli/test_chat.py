"""A reader of an instruct model is trained, saved, evaluated and asked in turns of a chat."""

import json
import shutil

import pytest

from aag_hf import AwakeningModel
from aag_hf.cli.main import main
from aag_hf.data import load_countries, write_records

CHATML = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
ADAPTER = ["--feature_dim", "8", "--r", "2", "--target_modules", "q_proj", "--max_steps", "1", "--report_to", "none"]
ADAPTER += ["--save_strategy", "no", "--disable_tqdm", "true", "--per_device_train_batch_size", "4"]


@pytest.fixture(scope="module")
def instruct_dir(tiny_llama_dir, tiny_tokenizer, tmp_path_factory):
    """The tiny Llama with a chat template."""
    folder = tmp_path_factory.mktemp("models") / "instruct"
    shutil.copytree(tiny_llama_dir, folder)
    (folder / "chat_template.jinja").write_text(CHATML)
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_records(load_countries()["train"][:12], folder / "train.jsonl")
    write_records(load_countries()["dev"][:6], folder / "dev.jsonl")
    return folder


def train(base, data, output, *options):
    files = ["--model_name_or_path", base, "--train_file", str(data / "train.jsonl"), "--output_dir", str(output)]
    return main(["train", *files, *ADAPTER, *map(str, options)])


@pytest.fixture(scope="module")
def reader(instruct_dir, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("readers") / "chat"
    assert train(instruct_dir, data, folder) == 0
    return folder


def test_the_template_is_saved_with_the_reader_and_used_whatever_the_base_has_later(reader, data, capsys, tmp_path):
    config = json.loads((reader / "config.json").read_text())
    assert config["chat"] is True and config["prompt"] == "<user>{question}</s><assistant>"
    assert config["context_prompt"] == "<user>{context}\n\n{question}</s><assistant>"
    model = AwakeningModel.from_pretrained(reader)
    model.tokenizer.chat_template = None
    inputs = model.reader_collator().generation_inputs(
        [{"id": "1", "question": "who?", "answers": ["me"], "features": [0.0] * 8}]
    )
    assert model.tokenizer.decode(inputs["input_ids"][0]) == "<user>who?</s><assistant>"
    dev = str(data / "dev.jsonl")
    assert main(["evaluate", "--model", str(reader), "--input", dev, "--output_dir", str(tmp_path)]) == 0
    assert main(["ask", "--model", str(reader), "--question", "who?"]) == 0


def test_it_can_be_switched_off_and_is_by_default_for_other_models(
    instruct_dir, tiny_llama_dir, data, tmp_path, capsys
):
    assert train(instruct_dir, data, tmp_path / "plain", "--chat", "false") == 0
    assert train(tiny_llama_dir, data, tmp_path / "base") == 0
    for name in ("plain", "base"):
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert config["chat"] is False and config["prompt"] == "Question: {question}\nAnswer:"
    assert train(tiny_llama_dir, data, tmp_path / "none", "--chat", "true") == 2
    assert "has no chat template: leave it out for plain prompts" in capsys.readouterr().err


def test_student_and_teacher_are_asked_alike(instruct_dir, data, tmp_path, capsys):
    teacher = tmp_path / "teacher"
    assert (
        train(instruct_dir, data, teacher, "--method", "lora", "--context", "passages", "--prompt_max_length", 160) == 0
    )
    cached = ["--teacher", teacher, "--teacher_cache_dir", tmp_path / "cache"]
    assert train(instruct_dir, data, tmp_path / "student", *cached) == 0
    assert train(instruct_dir, data, tmp_path / "other", *cached, "--chat", "false") == 2
    assert "was trained on turns of a chat: pass --chat true" in capsys.readouterr().err


def test_a_bare_instruct_model_is_asked_in_a_chat_with_examples_as_turns(instruct_dir, data, tmp_path):
    options = ["--model_name_or_path", instruct_dir, "--input", str(data / "dev.jsonl"), "--answer_max_length", "2"]
    options += ["--shots", "0", "2", "--shots_file", str(data / "train.jsonl")]
    tokens = {}
    for chat in ("true", "false"):
        assert main(["evaluate", *options, "--chat", chat, "--output_dir", str(tmp_path / chat)]) == 0
        tokens[chat] = [row["input_tokens"] for row in json.loads((tmp_path / chat / "results.json").read_text())]
    # One token a character: the turns' marks instead of the plain prompt's words.
    marks, words = len("<user><assistant>") + 1, len("Question: \nAnswer:")
    assert tokens["true"][0] - tokens["false"][0] == marks - words
    assert main(["evaluate", *options, "--output_dir", str(tmp_path / "true")]) == 2
