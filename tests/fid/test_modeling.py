import doctest

import pytest
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM, T5Config, T5ForConditionalGeneration

import aag_hf.fid.modeling
from aag_hf.errors import InputError
from aag_hf.fid import FiDT5Config, FiDT5ForConditionalGeneration

TINY = {
    "vocab_size": 50,
    "d_model": 16,
    "d_kv": 4,
    "d_ff": 32,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.0,
}


def build(**overrides):
    torch.manual_seed(3)
    return FiDT5ForConditionalGeneration(FiDT5Config(**TINY | overrides)).eval()


def passages(batch=2, count=3, tokens=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(2, 50, (batch, count, tokens), generator=generator)
    input_ids[:, 1:, tokens - 2 :] = 0
    return input_ids, input_ids.ne(0)


LABELS = torch.tensor([[5, 7, 1], [9, 1, -100]])


def test_two_dimensional_input_is_plain_t5():
    model = build()
    t5 = T5ForConditionalGeneration(T5Config(**TINY)).eval()
    t5.load_state_dict(model.state_dict())
    input_ids, mask = (x[:, 1] for x in passages())
    torch.testing.assert_close(
        model(input_ids=input_ids, attention_mask=mask, labels=LABELS).logits,
        t5(input_ids=input_ids, attention_mask=mask, labels=LABELS).logits,
        rtol=0,
        atol=0,
    )
    assert model.generate(input_ids=input_ids, max_new_tokens=4).shape[0] == 2


def test_passages_are_read_separately_and_decoded_jointly():
    model = build()
    input_ids, mask = passages()
    outputs = model(input_ids=input_ids, attention_mask=mask, labels=LABELS)
    alone = [model.encoder(input_ids=input_ids[:, p], attention_mask=mask[:, p])[0] for p in range(3)]
    torch.testing.assert_close(outputs.encoder_last_hidden_state, torch.cat(alone, 1))
    changed = input_ids.clone()
    changed[:, 2, 0] = 4
    assert not torch.allclose(model(input_ids=changed, attention_mask=mask, labels=LABELS).logits, outputs.logits)


def test_second_question_never_sees_the_first_ones_passages():
    model = build()
    first, second = passages(count=3), passages(count=2, seed=1)
    alone = build()(input_ids=second[0], attention_mask=second[1], labels=LABELS).logits
    model(input_ids=first[0], attention_mask=first[1], labels=LABELS)
    model.generate(input_ids=first[0], attention_mask=first[1], max_new_tokens=2)
    again = model(input_ids=second[0], attention_mask=second[1], labels=LABELS).logits
    torch.testing.assert_close(again, alone, rtol=0, atol=0)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_padding_passages_change_nothing_and_stay_finite_in_training(attention):
    model = build()
    model.set_attn_implementation(attention)
    input_ids, mask = passages()
    padded = torch.cat([input_ids, torch.zeros_like(input_ids[:, :2])], 1)
    expected = model(input_ids=input_ids, attention_mask=mask, labels=LABELS)
    outputs = model(input_ids=padded, attention_mask=padded.ne(0), labels=LABELS)
    torch.testing.assert_close(outputs.logits, expected.logits, rtol=1e-5, atol=1e-6)
    outputs.loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_without_a_mask_padding_is_read_off_the_pad_token():
    model = build()
    input_ids, mask = passages()
    expected = model(input_ids=input_ids, attention_mask=mask, labels=LABELS).logits
    torch.testing.assert_close(model(input_ids=input_ids, labels=LABELS).logits, expected)
    assert torch.equal(
        model.generate(input_ids=input_ids, num_beams=2, max_new_tokens=4),
        model.generate(input_ids=input_ids, attention_mask=mask, num_beams=2, max_new_tokens=4),
    )


@pytest.mark.parametrize("mode", [{}, {"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 3}])
def test_batched_generation_equals_one_question_at_a_time(mode):
    model = build()
    input_ids, mask = passages(batch=3)
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, **mode}
    together = model.generate(input_ids=input_ids, attention_mask=mask, **options)
    alone = [
        model.generate(input_ids=input_ids[i : i + 1], attention_mask=mask[i : i + 1], **options) for i in range(3)
    ]
    assert torch.equal(together, torch.cat(alone))
    assert torch.equal(together, model.generate(input_ids=input_ids, attention_mask=mask, use_cache=False, **options))


def test_sampling_returns_several_sequences_a_question():
    model = build()
    input_ids, mask = passages()
    samples = model.generate(
        input_ids=input_ids, attention_mask=mask, do_sample=True, num_return_sequences=3, max_new_tokens=4
    )
    assert samples.shape[0] == 6


def test_generation_returns_scores_and_states_on_request():
    model = build()
    model.set_attn_implementation("eager")
    input_ids, mask = passages()
    outputs = model.generate(
        input_ids=input_ids,
        attention_mask=mask,
        max_new_tokens=3,
        num_beams=2,
        return_dict_in_generate=True,
        output_hidden_states=True,
        output_attentions=True,
        output_scores=True,
    )
    assert outputs.encoder_hidden_states[0].shape == (6, 6, 16)
    assert outputs.cross_attentions[0][0].shape == (4, 4, 1, 18)


@pytest.mark.parametrize("asked", ["hidden_states", "attentions"])
def test_states_asked_for_alone_are_those_asked_for_together(asked):
    model = build()
    model.set_attn_implementation("eager")
    input_ids, mask = passages()
    together = model(input_ids, mask, labels=LABELS, output_hidden_states=True, output_attentions=True)
    alone = model(input_ids, mask, labels=LABELS, **{f"output_{asked}": True})
    names = [name for name in together if name.endswith(asked)]
    assert {name for name in alone if name.endswith(("hidden_states", "attentions"))} == {*names}
    for name in names:
        for actual, expected in zip(alone[name], together[name], strict=True):
            torch.testing.assert_close(actual, expected)


def test_gradient_checkpointing_gives_the_same_gradients():
    input_ids, mask = passages()
    gradients = []
    for checkpointing in (False, True):
        model = build().train()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model(input_ids=input_ids, attention_mask=mask, labels=LABELS).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_bfloat16_follows_float32():
    input_ids, mask = passages()
    exact = build()(input_ids=input_ids, attention_mask=mask, labels=LABELS)
    model = build().to(torch.bfloat16)
    rounded = model(input_ids=input_ids, attention_mask=mask, labels=LABELS)
    assert rounded.logits.dtype == torch.bfloat16
    assert abs(rounded.loss.float() - exact.loss) < 0.05 * exact.loss
    assert model.generate(input_ids=input_ids, attention_mask=mask, num_beams=2, max_new_tokens=3).shape[0] == 2


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_passage_scores_rank_as_log_attention_does(attention):
    model = build()
    input_ids, mask = passages()
    mask = torch.cat([mask, torch.zeros_like(mask[:, :1])], 1)
    input_ids = torch.cat([input_ids, torch.zeros_like(input_ids[:, :1])], 1)
    model.set_attn_implementation("eager")
    start = torch.zeros(2, 1, dtype=torch.long)
    attentions = model(
        input_ids=input_ids, attention_mask=mask, decoder_input_ids=start, output_attentions=True
    ).cross_attentions
    # log-softmax differs from the raw scores by one constant a head, so differences between passages agree.
    real = mask[:, :3]
    logs = torch.stack(attentions)[:, :, :, 0, :18].log().unflatten(-1, (3, 6))
    expected = logs.masked_fill(~real[None, :, None], 0).sum(-1).mean((0, 2)) / real.sum(-1)

    model.set_attn_implementation(attention)
    scores = model.passage_scores(input_ids, mask)
    assert scores.shape == (2, 4) and (scores[:, 3] == -torch.inf).all()
    torch.testing.assert_close(scores[:, :3] - scores[:, :1], expected - expected[:, :1], rtol=1e-4, atol=1e-5)
    assert not any(module._forward_hooks for name, module in model.named_modules() if name.endswith((".q", ".k")))


@pytest.mark.parametrize("architecture", [{}, {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}])
def test_saved_model_reloads_equal_through_the_auto_classes(architecture, tmp_path):
    model = build(**architecture)
    if architecture:
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    model.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), FiDT5Config)
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert isinstance(again, FiDT5ForConditionalGeneration)
    input_ids, mask = passages()
    torch.testing.assert_close(
        again(input_ids=input_ids, attention_mask=mask, labels=LABELS).logits,
        model(input_ids=input_ids, attention_mask=mask, labels=LABELS).logits,
        rtol=0,
        atol=0,
    )


def test_inputs_that_are_no_passages_are_refused():
    model = build()
    input_ids, mask = passages()
    with pytest.raises(InputError, match="at least one passage"):
        model(input_ids=input_ids[:, :0], attention_mask=mask[:, :0], labels=LABELS)
    with pytest.raises(InputError, match="at least one passage"):
        model.generate(input_ids=input_ids[:, :0], max_new_tokens=2)
    with pytest.raises(InputError, match="attention_mask is"):
        model(input_ids=input_ids, attention_mask=mask[:, :2], labels=LABELS)
    with pytest.raises(InputError, match="batch, passages, tokens"):
        model(input_ids=input_ids[None], attention_mask=mask[None], labels=LABELS)


def test_the_docstring_example_runs():
    assert doctest.testmod(aag_hf.fid.modeling).failed == 0
