"""Question features: independent of batch-mates and padding, whitened over the training set, saved with the model."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, LlamaConfig, LlamaModel

from aag_hf import QuestionEncoder
from aag_hf.errors import InputError
from aag_hf.questions.encoder import masked_mean
from aag_hf.questions.whitening import fit_whitening

GOLDEN = Path(os.environ.get("AAG_GOLDEN", Path(__file__).parents[2].parent / "shared" / "golden"))
QUESTIONS = [f"what is the {noun} of {place}?" for noun in ("capital", "currency", "area") for place in "ABCDEFG"]


@pytest.fixture(params=["llama", "t5"])
def encoder(request, tiny_llama_dir, tiny_t5_dir, tiny_tokenizer):
    if request.param == "llama":
        model = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    else:
        model = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5_dir)
    return QuestionEncoder.from_backbone(model, tiny_tokenizer, feature_dim=8).fit_whitening(QUESTIONS)


def test_features_are_unit_vectors_of_feature_dim(encoder):
    features = encoder.encode(QUESTIONS)
    assert features.shape == (len(QUESTIONS), 8) and features.dtype == torch.float32
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(len(QUESTIONS)))


def test_features_do_not_depend_on_batch_mates_or_padding(encoder):
    together = encoder.encode(["who?", *QUESTIONS])
    torch.testing.assert_close(encoder.encode(["who?"]), together[:1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(encoder.encode(QUESTIONS, batch_size=2), together[1:], atol=1e-5, rtol=1e-5)


def test_forward_equals_encode(encoder):
    tokens = encoder.tokenizer(QUESTIONS[:3], padding=True, padding_side="right", return_tensors="pt")
    features = encoder(tokens["input_ids"], tokens["attention_mask"])
    torch.testing.assert_close(features, encoder.encode(QUESTIONS[:3]), atol=1e-5, rtol=1e-5)


def test_statistics_come_from_the_training_questions_only(encoder):
    before = encoder.whitening.clone()
    encoder.encode(["an unseen question", "another"])
    assert torch.equal(encoder.whitening, before)


def test_saved_encoder_gives_the_same_features_without_a_second_backbone(encoder, tmp_path):
    encoder.save_pretrained(tmp_path)
    again = QuestionEncoder.from_pretrained(tmp_path)
    assert torch.equal(again.encode(QUESTIONS), encoder.encode(QUESTIONS))
    assert set(load_file(tmp_path / "model.safetensors")) == {"mean", "whitening"}
    shared = QuestionEncoder.from_pretrained(tmp_path, backbone=encoder.backbone)
    assert shared.backbone is encoder.backbone


def test_context_changes_the_features(encoder):
    with_context = encoder.encode(QUESTIONS[:2], contexts=["one context", "another context"])
    assert not torch.allclose(with_context, encoder.encode(QUESTIONS[:2]))


def test_first_position_is_left_out_for_causal_models_only(tiny_llama_dir, tiny_t5_dir, tiny_tokenizer):
    causal = QuestionEncoder.from_backbone(AutoModelForCausalLM.from_pretrained(tiny_llama_dir), tiny_tokenizer)
    encoder_decoder = QuestionEncoder.from_backbone(AutoModelForSeq2SeqLM.from_pretrained(tiny_t5_dir), tiny_tokenizer)
    ids = torch.tensor([[5, 6, 7], [8, 0, 0]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    assert causal._states(ids, mask)[1].tolist() == [[False, True, True], [True, False, False]]
    assert torch.equal(encoder_decoder._states(ids, mask)[1], mask.bool())


def test_pooled_statistics_whiten_the_questions_themselves(tiny_llama_dir, tiny_tokenizer):
    model = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    encoder = QuestionEncoder.from_backbone(model, tiny_tokenizer, feature_dim=8, statistics="pooled", layer=1)
    encoder.fit_whitening(QUESTIONS)
    pooled = torch.cat([masked_mean(*batch) for batch in encoder._batches(QUESTIONS, None, 32)])
    whitened = ((pooled - encoder.mean) @ encoder.whitening).double()
    torch.testing.assert_close(whitened.T @ whitened / len(QUESTIONS), torch.eye(8).double(), atol=1e-3, rtol=0)


def test_whitening_has_identity_covariance_and_matches_an_independent_computation():
    if not (GOLDEN / "whitening.safetensors").exists():
        pytest.skip(f"no whitening.safetensors in {GOLDEN}: set AAG_GOLDEN to the folder of golden vectors")
    golden = load_file(GOLDEN / "whitening.safetensors")
    for name, kernel in (("features", "kernel"), ("features8", "kernel8")):
        components = golden[kernel].shape[1]
        mean, whitening = fit_whitening(golden["vecs"].split(7), components)
        torch.testing.assert_close(-mean, golden["bias"].reshape(-1), atol=1e-9, rtol=1e-7)
        features = torch.nn.functional.normalize((golden["vecs"] - mean) @ whitening, dim=-1)
        torch.testing.assert_close(features @ features.T, golden[name] @ golden[name].T, atol=1e-9, rtol=1e-7)


def test_too_few_questions_say_what_feature_dim_they_allow():
    with pytest.raises(InputError, match="feature_dim is 8, but the 5 training vectors of width 16 span only 4"):
        fit_whitening([torch.randn(5, 16, generator=torch.Generator().manual_seed(0))], 8)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_whitening_does_not_depend_on_the_batches(offset):
    vectors = torch.randn(60, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + offset
    mean, whitening = fit_whitening([vectors], 4)
    for size in (1, 7, 59):
        other_mean, other = fit_whitening(vectors.split(size), 4)
        torch.testing.assert_close(other_mean, mean, atol=0, rtol=1e-12)
        torch.testing.assert_close(other @ other.T, whitening @ whitening.T, atol=1e-8, rtol=1e-8)


def test_no_question_has_no_features_and_gives_no_statistics(encoder):
    assert encoder.encode([]).shape == (0, 8)
    with pytest.raises(InputError, match="no questions to fit the statistics to"):
        encoder.fit_whitening([])
    with pytest.raises(InputError, match="batch_size is 0: expected 1 or more"):
        encoder.encode(QUESTIONS, batch_size=0)


def test_use_before_fitting_is_refused(tiny_llama_dir, tiny_tokenizer):
    encoder = QuestionEncoder.from_backbone(AutoModelForCausalLM.from_pretrained(tiny_llama_dir), tiny_tokenizer)
    with pytest.raises(InputError, match="call fit_whitening"):
        encoder.encode(QUESTIONS)


@pytest.mark.parametrize(("texts", "message"), [("who?", "got one string"), (["who?", " "], "question 1 is empty")])
def test_wrong_texts_are_named(encoder, texts, message):
    with pytest.raises(InputError, match=message):
        encoder.encode(texts)


def test_backbone_of_another_width_is_refused(encoder, tmp_path):
    encoder.save_pretrained(tmp_path)
    other = LlamaModel(
        LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    )
    with pytest.raises(InputError, match="statistics of width 32, but the backbone's hidden size is 16"):
        QuestionEncoder.from_pretrained(tmp_path, backbone=other)


def test_a_question_that_is_cut_is_said(encoder):
    encoder.config.max_tokens = 12
    with pytest.warns(UserWarning, match="2 of 3 questions are longer than max_tokens=12 and were cut"):
        encoder.encode(["what is the capital of A?", "what is the capital of B?", "who?"])


@pytest.mark.parametrize("spoil", ["remove", "nan", "shape"])
def test_statistics_that_cannot_be_used_are_refused_on_loading(encoder, tmp_path, spoil):
    encoder.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    if spoil == "remove":
        del tensors["whitening"]
    elif spoil == "nan":
        tensors["whitening"][0, 0] = torch.nan
    else:
        tensors["whitening"] = tensors["whitening"][:, :5].contiguous()
    save_file(tensors, file)
    with pytest.raises(InputError, match="whitening"):
        QuestionEncoder.from_pretrained(tmp_path, backbone=encoder.backbone)
