"""An answer's score is the mean log-probability of its tokens, whatever is decoded beside it."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from aag_hf import AwakeningConfig, AwakeningModel, AwakeningPipeline
from aag_hf.awakening.answer_scores import answer_scores, end_tokens
from aag_hf.errors import InputError

QUESTIONS = ["who wrote it?", "what is the capital of that far away place?", "when?"]


@pytest.fixture(params=["llama", "t5"])
def model(request, tiny_llama_dir, tiny_t5_dir, tiny_tokenizer):
    auto, path = (
        (AutoModelForCausalLM, tiny_llama_dir) if request.param == "llama" else (AutoModelForSeq2SeqLM, tiny_t5_dir)
    )
    base = auto.from_pretrained(path, dtype=torch.float64)
    return AwakeningModel(AwakeningConfig(path, answer_max_length=6), base, tiny_tokenizer).eval()


def naive_score(model, question):
    """Token by token, without a cache, each step a forward pass over everything so far."""
    reader, tokenizer = model.reader, model.tokenizer
    prompt = model.reader_collator().generation_inputs([{"id": "0", "question": question}])
    encoded = {} if not reader.config.is_encoder_decoder else dict(prompt)
    ids = torch.tensor([[reader.config.decoder_start_token_id]]) if encoded else prompt["input_ids"]
    log_probs, text = [], ""
    for _ in range(6):
        inputs = encoded | {"decoder_input_ids": ids} if encoded else {"input_ids": ids}
        step = reader(**inputs).logits[0, -1].log_softmax(-1)
        token = int(step.argmax())
        log_probs.append(step[token].item())
        ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
        text += tokenizer.decode([token])
        if token == tokenizer.eos_token_id or "\n" in text.lstrip():
            break
    return sum(log_probs) / len(log_probs)


@torch.no_grad()
def test_scores_are_those_of_a_naive_decoder_in_any_batch(model):
    expected = [naive_score(model, question) for question in QUESTIONS]
    for batch_size in (1, 2, 3):
        scores = model.generate(QUESTIONS, batch_size=batch_size).scores
        assert scores == pytest.approx(expected, abs=1e-5)


def test_samples_have_the_scores_of_what_was_drawn_and_beams_have_none(model):
    torch.manual_seed(0)
    greedy, sampled = (model.generate(QUESTIONS, do_sample=sample, top_k=0).scores for sample in (False, True))
    assert all(drawn < best for drawn, best in zip(sampled, greedy))
    assert model.generate(QUESTIONS, num_beams=2).scores is None


def test_what_follows_the_first_line_does_not_count(tiny_tokenizer):
    tokenizer = tiny_tokenizer
    (newline,) = tokenizer("\n", add_special_tokens=False).input_ids[-1:]
    (word,) = tokenizer("a", add_special_tokens=False).input_ids[-1:]
    assert "\n" in tokenizer.decode([newline])
    ids = torch.tensor([[word, newline, word], [word, tokenizer.eos_token_id, word], [newline, word, word]])
    log_probs = torch.tensor([[-1.0, -2.0, -9.0]] * 3)
    assert answer_scores(ids, log_probs, tokenizer, {tokenizer.eos_token_id}) == [-1.5, -1.5, -4.0]


def test_each_of_several_ends_ends_an_answer(model):
    tokenizer, config = model.tokenizer, model.reader.generation_config
    config.eos_token_id = [tokenizer.eos_token_id, 40]
    ids, log_probs = torch.tensor([[30, 40, 30]]), torch.tensor([[-1.0, -2.0, -9.0]])
    assert answer_scores(ids, log_probs, tokenizer, end_tokens(model.reader, tokenizer)) == [-1.5]
    config.eos_token_id = None
    assert end_tokens(model.reader, tokenizer) == {tokenizer.eos_token_id}


def test_unsure_answers_are_withheld_and_a_blank_question_fails_alone(model):
    ask = AwakeningPipeline(model)
    scores = [result["score"] for result in ask(QUESTIONS)]
    low, *_ = sorted(scores)
    kept = [result["answer"] is not None for result in ask(QUESTIONS, min_score=low + 1e-9)]
    assert kept == [score > low for score in scores]
    contexts = ["one", "two", "three", "four"]
    first, blank, *others = ask([QUESTIONS[0], " ", *QUESTIONS[1:]], contexts=contexts)
    assert blank["answer"] is None and blank["score"] is None
    alone = ask(QUESTIONS, contexts=["one", "three", "four"])
    assert [first["answer"], *(one["answer"] for one in others)] == [one["answer"] for one in alone]
    with pytest.raises(InputError, match="blank"):
        ask("  ")
