"""Layers whose rows are not the batch's are refused by name; all others answer each question as if it were alone."""

import pytest
import torch
from peft import get_peft_model
from transformers import (
    CLIPVisionConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    OPTConfig,
    OPTForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    SwitchTransformersConfig,
    SwitchTransformersForConditionalGeneration,
    XLNetConfig,
    XLNetLMHeadModel,
)

from aag_hf import HyperLoraConfig, to_lora
from aag_hf.hyperlora.rows import Rows

FEATURES = 6
IMAGE = 60
COMMON = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def adapted(base, **options):
    torch.manual_seed(3)
    settings = {"feature_dim": FEATURES, "r": 2, "target_modules": "all-linear", "init_weights": False}
    return get_peft_model(base.eval(), HyperLoraConfig(**settings, **options)).eval()


def ids(rows, tokens, seed=0):
    return torch.randint(3, 60, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def features(rows):
    return torch.randn(rows, FEATURES, generator=torch.Generator().manual_seed(5))


def xlnet():
    return XLNetLMHeadModel(XLNetConfig(vocab_size=64, d_model=32, n_layer=2, n_head=4, d_inner=64))


def switch():
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "num_experts": 2}
    sparse = {"num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1, "expert_capacity": 64}
    config = SwitchTransformersConfig(vocab_size=64, **sizes, **sparse, decoder_start_token_id=0, dropout_rate=0.0)
    return SwitchTransformersForConditionalGeneration(config)


def llava():
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**vision, image_size=8, patch_size=4).to_dict(),
        text_config=LlamaConfig(**COMMON, intermediate_size=64).to_dict(),
        image_token_index=IMAGE,
        vision_feature_select_strategy="full",
        image_seq_length=5,
    )
    return LlavaForConditionalGeneration(config)


def opt():
    sizes = {"ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 64}
    return OPTForCausalLM(OPTConfig(**COMMON, **sizes))


def qwen2_moe():
    experts = {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "num_experts": 4}
    return Qwen2MoeForCausalLM(
        Qwen2MoeConfig(**COMMON, **experts, num_experts_per_tok=2, num_key_value_heads=2, intermediate_size=64)
    )


def gpt2():
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64))


def test_layers_that_read_tokens_first_are_refused_when_they_are_adapted():
    with pytest.raises(ValueError, match=r"transformer\.layer\.0\.ff\.layer_1.*exclude_modules"):
        adapted(xlnet())


@pytest.mark.parametrize("seed", range(8))
def test_routed_experts_are_refused_whatever_number_of_tokens_they_get(seed):
    model = adapted(switch())
    with pytest.raises(ValueError, match=r"experts.*exclude_modules"):
        model(input_ids=ids(2, 2, seed), decoder_input_ids=ids(2, 2, seed + 99), features=features(2))


def test_the_rest_of_a_model_with_experts_works():
    model = adapted(switch(), exclude_modules=r".*experts.*")
    assert_alone_as_together(model, {"input_ids": ids(2, 6), "decoder_input_ids": ids(2, 6, 1)})


def test_image_encoders_are_refused_unless_there_is_one_question():
    model, two_images = adapted(llava()), torch.randn(2, 3, 8, 8)
    first = torch.cat([torch.full((1, 10), IMAGE), ids(1, 4)], dim=1)
    second = torch.cat([torch.full((1, 10), 5), ids(1, 4, 1)], dim=1)
    model(input_ids=first, pixel_values=two_images, features=features(1))
    with pytest.raises(ValueError, match=r"vision_tower.*exclude_modules"):
        model(input_ids=torch.cat([first, second]), pixel_values=two_images, features=features(2))


@pytest.mark.parametrize("make", [opt, qwen2_moe, gpt2])
def test_flattened_and_transposed_layers_work(make):
    assert_alone_as_together(adapted(make()), {"input_ids": ids(2, 6)})


def assert_alone_as_together(model, inputs):
    with torch.no_grad():
        together = model(**inputs, features=features(2)).logits
        for i in range(2):
            row = {name: value[i : i + 1] for name, value in inputs.items()}
            alone = model(**row, features=features(2)[i : i + 1]).logits
            torch.testing.assert_close(together[i : i + 1], alone, atol=1e-4, rtol=1e-4)
        swapped = model(**inputs, features=features(2).flip(0)).logits
    assert not torch.allclose(swapped, together, atol=1e-3)


def test_the_trial_reaches_every_layer_of_a_plain_model():
    layers = [module for module in adapted(gpt2()).modules() if hasattr(module, "rows")]
    assert len(layers) == 8 and {layer.rows for layer in layers} == {Rows.BATCH_FIRST}


def test_a_transposed_layer_is_merged_and_exported_exactly():
    base = gpt2().double()
    model = adapted(base).double()
    prompt, vector = ids(1, 4), features(1).double()
    options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "output_logits": True}
    plain, merged = (
        model.generate(prompt, features=vector, return_dict_in_generate=True, merge_adapter=m, **options)
        for m in (False, True)
    )
    torch.testing.assert_close(torch.stack(merged.logits), torch.stack(plain.logits))
    expected = model(prompt, features=vector).logits
    config, weights = to_lora(model, vector)
    lora = get_peft_model(model.unload(), config).double()
    lora.load_state_dict({k.replace(".weight", ".default.weight"): v for k, v in weights.items()}, strict=False)
    torch.testing.assert_close(lora(prompt).logits, expected)
