"""Several texts for a prompt: the greedy one and samples, each with its score, whatever is decoded beside it."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from aag_hf.awakening.answer_scores import text_scores
from aag_hf.awakening.decoding import generate_texts
from aag_hf.awakening.drafts import Draft, DrawingOptions, draw_texts, sample, without_duplicates
from aag_hf.collators import DataCollatorForContextGeneration
from aag_hf.errors import InputError

QUESTIONS = ["who wrote it?", "what is the capital of that far away place?", "when?"]
RECORDS = [{"id": str(i), "question": question} for i, question in enumerate(QUESTIONS)]


@pytest.fixture(params=["llama", "t5"])
def writer(request, tiny_llama_dir, tiny_t5_dir, tiny_tokenizer):
    auto, path = (
        (AutoModelForCausalLM, tiny_llama_dir) if request.param == "llama" else (AutoModelForSeq2SeqLM, tiny_t5_dir)
    )
    model = auto.from_pretrained(path, dtype=torch.float64)
    return model, DataCollatorForContextGeneration(tiny_tokenizer, request.param == "t5")


def draw(writer, records, number=4, tokens=7, **options):
    return draw_texts(*writer, records, number, DrawingOptions(**options), max_new_tokens=tokens)


def test_the_first_draft_is_the_greedy_text_and_the_others_are_drawn(writer):
    drawn = draw(writer, RECORDS)
    assert [drafts[0].text for drafts in drawn] == generate_texts(*writer, RECORDS, max_new_tokens=7).texts
    assert all(len({draft.text for draft in drafts}) == 4 for drafts in drawn)


def test_drafts_depend_on_seed_and_question_and_not_on_the_batch(writer):
    drawn = draw(writer, RECORDS)
    assert [draw(writer, [record])[0] for record in RECORDS] == [
        [(text, pytest.approx(score)) for text, score in drafts] for drafts in drawn
    ]
    assert draw(writer, RECORDS, number=2) == [
        [(text, pytest.approx(score)) for text, score in drafts[:2]] for drafts in drawn
    ]
    assert draw(writer, RECORDS, seed=30)[0][1:] != drawn[0][1:]


@torch.no_grad()
def test_a_score_is_the_mean_log_probability_of_the_text(tiny_llama_dir, tiny_tokenizer):
    model = AutoModelForCausalLM.from_pretrained(tiny_llama_dir, dtype=torch.float64)
    collator = DataCollatorForContextGeneration(tiny_tokenizer)
    (drafts,) = draw((model, collator), RECORDS[:1], number=64, tokens=2, temperature=0.5)
    prompt = collator.generation_inputs(RECORDS[:1])["input_ids"]
    # Half a character or a blank would not be the same tokens again.
    told = [draft for draft in drafts if draft.text.isascii() and len(draft.text) == 2]
    assert len(told) > 2
    for draft in told:
        ids = torch.tensor([tiny_tokenizer(draft.text, add_special_tokens=False).input_ids])
        log_probs = model(torch.cat([prompt, ids], dim=1)).logits[:, prompt.shape[1] - 1 : -1].log_softmax(-1)
        assert draft.score == pytest.approx(log_probs.gather(2, ids[..., None]).mean().item(), abs=1e-5)


def test_a_text_counts_up_to_its_first_end():
    ids = torch.tensor([[5, 1, 5, 1], [5, 6, 5, 6]])
    assert text_scores(ids, torch.tensor([[-1.0, -2.0, -9.0, -9.0]] * 2), {1, 2}) == [-1.5, -5.25]


def test_samples_have_the_probabilities_of_the_nucleus():
    probabilities = torch.tensor([0.15, 0.5, 0.05, 0.3], dtype=torch.float64)
    uniform = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000

    def shares(temperature, top_p):
        drawn = sample(probabilities.log().expand(20_000, 4), uniform, temperature, top_p)
        return (drawn.bincount(minlength=4) / 20_000).tolist()

    assert shares(1.0, 1.0) == pytest.approx(probabilities.tolist(), abs=1e-3)
    # 0.5 and 0.3 are less than 0.9 together: 0.15 comes in too, and 0.05 does not.
    assert shares(1.0, 0.9) == pytest.approx([0.15 / 0.95, 0.5 / 0.95, 0.0, 0.3 / 0.95], abs=1e-3)
    squared = probabilities**2 / (probabilities**2).sum()
    assert shares(0.5, 1.0) == pytest.approx(squared.tolist(), abs=1e-3)


def test_duplicates_are_dropped_and_the_order_stays():
    drafts = [Draft("a", -1.0), Draft("b", -2.0), Draft("a", -3.0), Draft("c", -4.0)]
    assert without_duplicates(drafts) == [("a", -1.0), ("b", -2.0), ("c", -4.0)]


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.5}, {"number": 0}])
def test_numbers_out_of_range_are_refused(writer, options):
    with pytest.raises(InputError, match="expected"):
        draw(writer, RECORDS, **options)
