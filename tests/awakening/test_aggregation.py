"""Several answers become one: by votes, by their probability over all drafts, by a trained head, or read together."""

import json
from itertools import product

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from aag_hf import AwakeningConfig, AwakeningModel, AwakeningPipeline
from aag_hf.awakening import share_weights
from aag_hf.awakening.aggregation import Candidate, DraftOptions, grouped, marginal, vote
from aag_hf.awakening.answer_scorer import EVIDENCE, AnswerScorer
from aag_hf.awakening.answering import answer_each
from aag_hf.awakening.evidence import evidence_of
from aag_hf.errors import InputError

QUESTIONS = ["who wrote it?", "what is the capital of that far away place?", "when?"]


def model_of(kind, context, tiny_llama_dir, tiny_t5_dir, tiny_tokenizer):
    auto, path = (AutoModelForCausalLM, tiny_llama_dir) if kind == "llama" else (AutoModelForSeq2SeqLM, tiny_t5_dir)
    base = auto.from_pretrained(path, dtype=torch.float64)
    names = ["q_proj", "down_proj"] if kind == "llama" else ["q", "wo"]
    torch.manual_seed(1)
    lora = LoraConfig(r=2, target_modules=names, init_lora_weights=False)
    reader, generator = (get_peft_model(share_weights(base), lora).double() for _ in range(2))
    config = AwakeningConfig(path, context=context, answer_max_length=5, context_max_length=6)
    return AwakeningModel(config, reader, tiny_tokenizer, generator=generator).eval()


@pytest.fixture(params=["llama", "t5"])
def make(request, tiny_llama_dir, tiny_t5_dir, tiny_tokenizer):
    return lambda context: model_of(request.param, context, tiny_llama_dir, tiny_t5_dir, tiny_tokenizer)


def test_the_most_frequent_answer_wins_and_ties_go_to_the_highest_score():
    said = [Candidate("Suva", -0.9, 0), Candidate("Nadi", -0.1, 1), Candidate("the suva!", -0.5, 2)]
    assert vote(said) == ("the suva!", pytest.approx(torch.tensor(2 / 3).log().item()), 2)
    assert vote(said[:2]).answer == "Nadi"
    assert [len(group) for group in grouped(said)] == [2, 1]


def test_the_marginal_is_the_plain_sum_over_drafts():
    torch.manual_seed(0)
    scores, likelihoods = torch.randn(4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64) - 5
    expected = torch.zeros(3, dtype=torch.float64)
    for answer, draft in product(range(3), range(4)):
        prior = scores[draft].exp() / sum(score.exp() for score in scores)
        expected[answer] += prior * likelihoods[answer, draft].exp()
    torch.testing.assert_close(marginal(scores, likelihoods).exp(), expected, rtol=1e-12, atol=0)
    assert marginal(scores, likelihoods - 5000).isfinite().all()


@pytest.mark.parametrize("kind", ["contexts", "answers"])
def test_every_answer_is_scored_under_every_draft_as_if_alone(make, kind):
    model = make("generated" if kind == "contexts" else "none")
    options = DraftOptions(**{f"num_{kind}": 3})
    together = evidence_of(model, QUESTIONS, answer_each(model, QUESTIONS, options))
    for question, evidence in zip(QUESTIONS, together):
        (alone,) = evidence_of(model, [question], answer_each(model, [question], options), batch_size=1)
        assert [one.answer for one in alone.candidates] == [one.answer for one in evidence.candidates]
        torch.testing.assert_close(alone.table, evidence.table, rtol=1e-4, atol=1e-4)
        assert evidence.table.shape[1] == len(EVIDENCE) and (evidence.marginal < 0).all()


def test_a_single_greedy_answer_has_the_probability_of_its_tokens(make):
    model = make("generated")
    answered = answer_each(model, QUESTIONS, DraftOptions(num_contexts=2, top_p=1e-9))
    assert all(len(each) == 1 for each in answered.candidates)
    output = model.generate(QUESTIONS)
    assert [each[0].answer for each in answered.candidates] == output.answers
    assert [each[0].score for each in answered.candidates] == pytest.approx(output.scores, abs=1e-5)


@pytest.mark.parametrize("aggregation", ["vote", "marginal", "fuse", "best"])
def test_one_answer_comes_out_with_a_probability_and_its_context(make, aggregation, tmp_path):
    model = make("generated")
    weights = (1.0,) * len(EVIDENCE)
    AnswerScorer(weights, weights, weights, 0.0).save(tmp_path / "scorer.json")
    options = DraftOptions(num_contexts=3, aggregation=aggregation, scorer=str(tmp_path / "scorer.json"))
    output = model.generate(QUESTIONS, drafts=options)
    answers = [{c.answer for c in each} for each in answer_each(model, QUESTIONS, options).candidates]
    assert all(score <= 0 for score in output.scores) and len(output.answers) == 3
    if aggregation != "fuse":
        assert all(answer in among for answer, among in zip(output.answers, answers))
        assert all(read in {draft.text for draft in each} for read, each in zip(output.contexts, output.drafts))
    (one,) = AwakeningPipeline(model)(QUESTIONS[:1], drafts=options)
    assert one["answer"] == output.answers[0]


def test_drawn_answers_are_voted_without_any_context(make):
    model = make("none")
    output = model.generate(QUESTIONS, drafts=DraftOptions(num_answers=4))
    assert output.contexts is None and output.drafts is None
    assert model.generate(QUESTIONS, drafts=DraftOptions(num_answers=4)).answers == output.answers
    certain = model.generate(QUESTIONS, drafts=DraftOptions(num_answers=4, top_p=1e-9))
    assert certain.answers == model.generate(QUESTIONS).answers and certain.scores == [0.0] * 3


def test_a_scorer_finds_the_odds_and_is_the_same_once_saved(tmp_path):
    torch.manual_seed(0)
    evidence = torch.randn(4000, len(EVIDENCE), dtype=torch.float64) * 3 + 1
    truth = evidence @ torch.tensor([1.0, -0.5, 0.0, 0.0, 0.2], dtype=torch.float64)
    scorer = AnswerScorer.fit(evidence, (torch.rand(4000) < truth.sigmoid()).double())
    told = scorer.log_probability(evidence)
    assert (told.exp() - truth.sigmoid()).abs().mean() < 0.02
    scorer.save(tmp_path / "scorer.json")
    assert AnswerScorer.load(tmp_path / "scorer.json") == scorer
    with pytest.raises(InputError, match="right and wrong"):
        AnswerScorer.fit(evidence, torch.ones(4000))


@pytest.mark.parametrize("change", [{"evidence": ["other"]}, {"weight": [1.0]}, {"bias": "NaN"}, {"mean": None}])
def test_a_damaged_scorer_is_refused(tmp_path, change):
    weights = (1.0,) * len(EVIDENCE)
    path = tmp_path / "scorer.json"
    AnswerScorer(weights, weights, weights, 0.0).save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match="fit it again"):
        AnswerScorer.load(path)
    with pytest.raises(InputError, match="cannot be read"):
        AnswerScorer.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("options", "context", "message"),
    [
        ({"num_contexts": 2, "num_answers": 2}, "none", "draw contexts or answers"),
        ({"num_contexts": 2, "aggregation": "mean"}, "none", "must be one of vote"),
        ({"num_answers": 2, "aggregation": "fuse"}, "none", "set num_contexts"),
        ({"num_answers": 2, "aggregation": "best"}, "none", "needs a scorer"),
        ({"num_contexts": 2}, "none", "set num_answers"),
        ({"num_contexts": 2, "aggregation": "memory"}, "generated", "adapter is made from documents"),
    ],
)
def test_options_that_do_not_go_together_are_refused(make, options, context, message):
    with pytest.raises(InputError, match=message):
        make(context).generate(QUESTIONS, drafts=DraftOptions(**options))
    with pytest.raises(InputError, match="take the place"):
        make("generated").generate(QUESTIONS[:1], contexts=["one"], drafts=DraftOptions(num_contexts=2))
