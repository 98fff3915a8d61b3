"""``pipeline("awakening-qa", model=...)``: transformers' own way in gives the answers of ours."""

import pytest
import torch
from datasets import Dataset
from peft import get_peft_model
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset

from aag_hf import AwakeningConfig, AwakeningModel, HyperLoraConfig, QuestionEncoder
from aag_hf.awakening import share_weights
from aag_hf.awakening.loading import load_language_model, load_tokenizer
from aag_hf.errors import InputError

QUESTIONS = [f"what is the {noun} of {place}?" for noun in ("capital", "currency") for place in "ABCDE"]


@pytest.fixture(scope="module")
def saved(tiny_llama_dir, tmp_path_factory):
    base, tokenizer = load_language_model(tiny_llama_dir), load_tokenizer(tiny_llama_dir)
    torch.manual_seed(1)
    adapter = HyperLoraConfig(
        task_type="CAUSAL_LM", feature_dim=8, r=2, target_modules=["q_proj", "down_proj"], init_weights=False
    )
    encoder = QuestionEncoder.from_backbone(base, tokenizer, feature_dim=8).fit_whitening(QUESTIONS)
    config = AwakeningConfig(tiny_llama_dir, answer_max_length=5)
    folder = tmp_path_factory.mktemp("saved") / "reader"
    AwakeningModel(config, get_peft_model(share_weights(base), adapter), tokenizer, encoder).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def expected(saved):
    return AwakeningModel.from_pretrained(saved).generate(QUESTIONS).answers


@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_lists_data_sets_and_generators_give_the_same_answers_in_their_order(saved, expected, batch_size):
    ask = pipeline("awakening-qa", model=str(saved), device="cpu")
    assert [result["answer"] for result in ask(QUESTIONS, batch_size=batch_size)] == expected
    rows = KeyDataset(Dataset.from_dict({"question": QUESTIONS}), "question")
    assert [result["answer"] for result in ask(rows, batch_size=batch_size)] == expected
    lazily = ask((question for question in QUESTIONS), batch_size=batch_size)
    assert next(lazily)["answer"] == expected[0] and [r["answer"] for r in lazily] == expected[1:]
    one = ask(QUESTIONS[0])
    assert set(one) == {"question", "answer", "score", "context", "seconds"} and one["answer"] == expected[0]


def test_a_context_may_stand_beside_the_question_and_options_reach_generate(saved):
    ask = pipeline("awakening-qa", model=str(saved), device=-1, batch_size=2, max_new_tokens=1)
    asked = [{"question": question, "context": f"note {i}"} for i, question in enumerate(QUESTIONS)]
    model = AwakeningModel.from_pretrained(saved)
    answers = model.generate(QUESTIONS, contexts=[one["context"] for one in asked], max_new_tokens=1).answers
    assert [result["answer"] for result in ask(asked)] == answers
    assert [result["context"] for result in ask(asked)] == [one["context"] for one in asked]
    assert "AwakeningQAPipeline(base=" in repr(ask)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["who?", 7], "expected a question, or a dictionary with one, found 7"),
        ([{"query": "who?"}], "found {'query': 'who\\?'}"),
        ([{"question": "who?", "context": "me"}, "where?"], "1 of 2 questions have context"),
    ],
)
def test_what_is_no_question_is_named(saved, inputs, message):
    with pytest.raises(InputError, match=message):
        pipeline("awakening-qa", model=str(saved), device="cpu")(inputs, batch_size=2)


def test_a_saved_pipeline_is_the_model(saved, tmp_path):
    pipeline("awakening-qa", model=str(saved), device="cpu").save_pretrained(tmp_path / "again")
    again = pipeline("awakening-qa", model=AwakeningModel.from_pretrained(tmp_path / "again"), device="cpu")
    assert again(QUESTIONS[0])["answer"] == AwakeningModel.from_pretrained(saved).generate(QUESTIONS[:1]).answers[0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"contexts": ["a", "b"]}, "contexts: questions come in batches: give each as .*'context'"),
        ({"documents": ["a", "b"]}, "documents: .*'document'"),
        ({"features": torch.zeros(2, 8)}, "features: questions come in batches: give one row for all"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_what_belongs_to_single_questions_is_not_given_to_each_batch_anew(saved, given, message):
    with pytest.raises(InputError, match=message):
        list(pipeline("awakening-qa", model=str(saved), device="cpu")(QUESTIONS, **{"batch_size": 2, **given}))


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_blank_question_has_no_answer_whatever_the_batches(saved, expected, batch_size):
    ask = pipeline("awakening-qa", model=str(saved), device="cpu")
    answers = [result["answer"] for result in ask(["", *QUESTIONS], batch_size=batch_size)]
    assert answers == [None, *expected]
