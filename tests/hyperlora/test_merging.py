"""Decoding with one question's adapter merged into the weights."""

import pytest
import torch
from accelerate import cpu_offload
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, LogitsProcessorList

from aag_hf import HyperLoraConfig
from aag_hf.awakening import share_weights

FEATURES = 6
PROMPT = torch.tensor([[5, 9, 17, 30]])


@pytest.fixture(params=["llama", "t5"])
def base(request, tiny_llama_dir, tiny_t5_dir):
    auto, path = (
        (AutoModelForCausalLM, tiny_llama_dir) if request.param == "llama" else (AutoModelForSeq2SeqLM, tiny_t5_dir)
    )
    return auto.from_pretrained(path, dtype=torch.float64).eval()


def with_adapter(base, **options):
    torch.manual_seed(3)
    targets = "all-linear" if not base.config.is_encoder_decoder else ["q", "v", "wo"]
    settings = {"feature_dim": FEATURES, "r": 2, "lora_alpha": 8, "target_modules": targets, "init_weights": False}
    return get_peft_model(share_weights(base), HyperLoraConfig(**settings, **options)).double().eval()


def features(rows=1):
    return torch.randn(rows, FEATURES, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def decode(model, prompt=PROMPT, **options):
    settings = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    output = model.generate(input_ids=prompt, **settings, output_scores=True, return_dict_in_generate=True, **options)
    return output.sequences, torch.stack(output.scores)


def weights(model):
    return dict(model.named_parameters())


@pytest.mark.parametrize("options", [{}, {"static": True}, {"hypernetwork": "mlp"}], ids=["plain", "static", "mlp"])
@pytest.mark.parametrize("beams", [1, 3])
def test_merged_it_decodes_the_same(base, options, beams):
    model = with_adapter(base, **options)
    tokens, scores = decode(model, features=features(), num_beams=beams)
    merged_tokens, merged_scores = decode(model, features=features(), num_beams=beams, merge_adapter=True)
    assert torch.equal(tokens, merged_tokens)
    torch.testing.assert_close(merged_scores, scores)
    assert not torch.equal(decode(base, num_beams=beams)[1], scores)


def test_one_question_in_many_rows(base):
    model, prompts = with_adapter(base), torch.tensor([[5, 9, 17, 30], [8, 3, 3, 12]])
    _, scores = decode(model, prompts, features=features().expand(2, -1))
    _, merged_scores = decode(model, prompts, features=features(), merge_adapter=True)
    torch.testing.assert_close(merged_scores, scores)


def test_the_models_own_weights_are_never_touched(base):
    model = with_adapter(base)
    before = {name: (id(p), p.detach().clone()) for name, p in weights(model).items()}
    unchanged = []

    def look(ids, scores):
        unchanged.append(all(id(p) == before[n][0] and torch.equal(p, before[n][1]) for n, p in weights(model).items()))
        return scores

    decode(model, features=features(), merge_adapter=True, logits_processor=LogitsProcessorList([look]))
    assert len(unchanged) == 6 and all(unchanged)


def test_each_question_is_merged_into_the_weights_of_then(base):
    model = with_adapter(base, static=True)
    for question in features(3).split(1):
        _, merged_scores = decode(model, features=question, merge_adapter=True)
        torch.testing.assert_close(merged_scores, decode(model, features=question)[1])
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.mul_(1.5)
    _, merged_scores = decode(model, features=features(), merge_adapter=True)
    torch.testing.assert_close(merged_scores, decode(model, features=features())[1])
    model.float()
    _, merged_scores = decode(model, features=features(), merge_adapter=True)
    torch.testing.assert_close(merged_scores, decode(model, features=features())[1], rtol=1e-3, atol=1e-3)


def test_merges_in_and_outside_inference_mode(base):
    model = with_adapter(base)
    _, scores = decode(model, features=features())
    for inference in (True, False, True):
        with torch.inference_mode(inference):
            torch.testing.assert_close(decode(model, features=features(), merge_adapter=True)[1], scores)


def test_layers_an_adapter_leaves_out_keep_their_weights(base):
    first, second = ("q_proj", "v_proj") if not base.config.is_encoder_decoder else ("q", "v")
    settings = {"feature_dim": FEATURES, "r": 2, "init_weights": False}
    model = get_peft_model(base, HyperLoraConfig(target_modules=[first], **settings))
    model.add_adapter("second", HyperLoraConfig(target_modules=[second], **settings))
    model.double().eval()
    before = {name: p.detach().clone() for name, p in weights(model).items()}
    for name in ("default", "second", "default"):
        model.set_adapter(name)
        _, merged_scores = decode(model, features=features(), merge_adapter=True)
        torch.testing.assert_close(merged_scores, decode(model, features=features())[1])
    assert all(torch.equal(p, before[name]) for name, p in weights(model).items())


def test_after_an_exception_nothing_is_merged(base):
    model = with_adapter(base)

    def fail(ids, scores):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        decode(model, features=features(), merge_adapter=True, logits_processor=LogitsProcessorList([fail]))
    with pytest.raises(RuntimeError, match="without features"):
        model(PROMPT, decoder_input_ids=PROMPT) if base.config.is_encoder_decoder else model(PROMPT)


@pytest.mark.parametrize("use_dora", [False, True])
def test_over_another_adapter_it_is_refused(base, use_dora):
    targets = ["q_proj"] if not base.config.is_encoder_decoder else ["q"]
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules=targets, use_dora=use_dora)).double().get_base_model()
    adapted.__dict__.pop("peft_config", None)
    model = get_peft_model(adapted, HyperLoraConfig(feature_dim=FEATURES, r=2, target_modules=targets)).double().eval()
    with pytest.raises(ValueError, match="over another adapter"):
        decode(model, features=features(), merge_adapter=True)


def test_a_disabled_adapter_is_not_merged(base):
    model = with_adapter(base)
    with model.disable_adapter():
        _, scores = decode(model, features=features(), merge_adapter=True)
    assert torch.equal(scores, decode(base)[1])


def test_what_cannot_be_merged_is_refused(base):
    model = with_adapter(base)
    with pytest.raises(ValueError, match="has 2 rows: only one question"):
        decode(model, PROMPT.expand(2, -1), features=features(2), merge_adapter=True)
    with pytest.raises(ValueError, match="merge_adapter needs features"):
        decode(model, merge_adapter=True)


def test_offloaded_weights_cannot_be_merged_into(base):
    model = with_adapter(base)
    cpu_offload(model.get_base_model().get_submodule("encoder" if base.config.is_encoder_decoder else "model"))
    with pytest.raises(ValueError, match="offloaded"):
        decode(model, features=features(), merge_adapter=True)
