"""Token states of documents: of the right layer, standardised, in windows, and refused where nothing can be read."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from aag_hf import DocumentEncoder
from aag_hf.errors import InputError
from aag_hf.hub import model_card

TEXTS = ["The capital of Nuvaria is Brel.", "Ost pays.", "Кириллица, 漢字 और हिन्दी: still a text."]


@pytest.fixture
def backbone(tiny_llama_dir):
    return AutoModelForCausalLM.from_pretrained(tiny_llama_dir).eval()


@pytest.fixture
def encoder(backbone, tiny_tokenizer):
    return DocumentEncoder.from_backbone(backbone, tiny_tokenizer, layer=1).fit_statistics(TEXTS)


def raw_states(backbone, tokenizer, text, layer=1):
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return backbone(ids, output_hidden_states=True).hidden_states[layer][0], ids[0]


def test_states_are_those_of_the_layer_standardised_without_the_first_position(encoder, backbone, tiny_tokenizer):
    raw = [raw_states(backbone, tiny_tokenizer, text) for text in TEXTS]
    tokens = torch.cat([states[1:] for states, _ in raw])
    torch.testing.assert_close(encoder.mean, tokens.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoder.deviation, tokens.std(0, unbiased=False), rtol=1e-4, atol=1e-5)
    encoded = encoder.encode(TEXTS)
    longest = max(len(ids) for _, ids in raw)
    assert encoded.states.shape == encoded.embeddings.shape == (3, longest, 32)
    for i, (states, ids) in enumerate(raw):
        assert encoded.mask[i].nonzero().flatten().tolist() == list(range(1, len(ids)))
        expected = ((states - encoder.mean) / encoder.deviation)[1:].clamp(-8, 8)
        torch.testing.assert_close(encoded.states[i, 1 : len(ids)], expected, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(encoded.embeddings[i, 1 : len(ids)], backbone.get_input_embeddings()(ids)[1:])
        assert not encoded.states[i, ~encoded.mask[i]].any()


def test_batches_and_padding_change_nothing(encoder):
    together, alone = encoder.encode(TEXTS, batch_size=2), [encoder.encode([text]) for text in TEXTS]
    for i, one in enumerate(alone):
        tokens = one.states.shape[1]
        torch.testing.assert_close(together.states[i, :tokens], one.states[0], rtol=1e-3, atol=1e-4)


def test_a_long_document_is_read_in_windows_that_overlap(encoder, backbone, tiny_tokenizer):
    text = " ".join(TEXTS * 3)
    encoder.config.window, encoder.config.overlap = 20, 6
    encoded = encoder.encode([text, TEXTS[1]])
    ids = tiny_tokenizer(text)["input_ids"]
    assert encoded.mask[0].sum() == len(ids) - 1
    for start in range(0, len(ids) - 6, 14):
        window = torch.tensor([ids[start : start + 20]])
        with torch.no_grad():
            states = backbone(window, output_hidden_states=True).hidden_states[1][0]
        new = 6 if start else 1
        expected = ((states - encoder.mean) / encoder.deviation).clamp(-8, 8)[new:]
        torch.testing.assert_close(encoded.states[0, start + new : start + 20], expected, rtol=1e-3, atol=1e-4)


def test_an_encoder_of_its_own_keeps_the_first_position(tiny_t5_dir, tiny_tokenizer):
    backbone = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5_dir)
    encoder = DocumentEncoder.from_backbone(backbone, tiny_tokenizer).fit_statistics(TEXTS)
    assert encoder.encode(TEXTS).mask[:, 0].all()


def test_it_comes_back_from_its_folder(encoder, backbone, tmp_path):
    encoder.save_pretrained(tmp_path)
    again = DocumentEncoder.from_pretrained(tmp_path, backbone=backbone)
    assert torch.equal(again.encode(TEXTS).states, encoder.encode(TEXTS).states)
    assert "DocumentEncoder.from_pretrained" in str(model_card(tmp_path, "me/this"))


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ("one text", "got one string: pass \\[document\\]"),
        (["", "a text"], "document 0 is empty"),
        (["a text", " \n"], "document 1 is empty"),
        (["a"], "document 0 has 1 tokens, of which none can be remembered"),
        (["abc " * 40], "document 0 has 160 tokens, more than max_tokens=100: split it"),
        (["abc " * 2_500_000], "document 0 has 10,000,000 characters, more than max_tokens=100: split it"),
    ],
)
def test_what_cannot_be_read_is_refused(encoder, texts, said):
    encoder.config.max_tokens = 100
    with pytest.raises(InputError, match=said):
        encoder.encode(texts)


def test_statistics_are_asked_for(backbone, tiny_tokenizer):
    fresh = DocumentEncoder.from_backbone(backbone, tiny_tokenizer)
    with pytest.raises(InputError, match="call fit_statistics first"):
        fresh.encode(TEXTS)
    with pytest.raises(InputError, match="0 documents with 0 tokens"):
        fresh.fit_statistics([])
