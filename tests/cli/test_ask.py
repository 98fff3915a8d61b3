"""`aag ask`: answers on one stream, how they came about on the other, and JSON for programs."""

import json

import pytest
from transformers import AutoModelForCausalLM

from aag_hf import AwakeningConfig, AwakeningModel
from aag_hf.awakening.aggregation import DraftOptions
from aag_hf.cli.main import main

QUESTIONS = ["who wrote it?", "what is the capital?"]


@pytest.fixture
def saved(tiny_llama_dir, tiny_tokenizer, tmp_path):
    base = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    config = AwakeningConfig(tiny_llama_dir, answer_max_length=4)
    AwakeningModel(config, base, tiny_tokenizer).save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def test_answers_go_to_one_stream_and_timings_to_the_other(saved, capsys):
    assert main(["ask", "--model", saved, "--question", *QUESTIONS]) == 0
    told = capsys.readouterr()
    expected = AwakeningModel.from_pretrained(saved).generate(QUESTIONS)
    assert told.out.splitlines() == expected.answers
    assert told.err.count(" ms") >= 2 and f"score {expected.scores[0]:.2f}" in told.err


def test_json_is_one_object_per_question(saved, capsys):
    assert main(["ask", "--model", saved, "--json", "true", "--question", *QUESTIONS]) == 0
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [result["question"] for result in results] == QUESTIONS
    assert all(result["answer"] is not None and result["score"] < 0 for result in results)
    assert main(["ask", "--model", saved, "--json", "--min_score", "0", "--question", *QUESTIONS]) == 0
    assert all(json.loads(line)["answer"] is None for line in capsys.readouterr().out.splitlines())


def test_a_blank_question_is_told_after_the_others_are_answered(saved, capsys):
    assert main(["ask", "--model", saved, "--json", "--question", QUESTIONS[0], ""]) == 2
    told = capsys.readouterr()
    answered, blank = (json.loads(line) for line in told.out.splitlines())
    assert answered["answer"] is not None and blank["answer"] is None
    assert told.err.splitlines()[-1] == "aag ask: 1 of 2 questions are blank and have no answer."


def test_several_answers_are_voted(saved, capsys):
    assert main(["ask", "--model", saved, "--json", "--num_answers", "3", "--question", *QUESTIONS]) == 0
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = AwakeningModel.from_pretrained(saved).generate(QUESTIONS, drafts=DraftOptions(num_answers=3))
    assert [result["answer"] for result in results] == expected.answers
