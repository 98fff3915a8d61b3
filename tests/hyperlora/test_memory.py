"""Adapters from documents: the memory against its formula, in every way a model is called, and what is refused."""

import json
import math
from dataclasses import replace

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import save_file
from torch.nn.functional import sigmoid
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from aag_hf import DocumentMemory, HyperLoraConfig, hyperlora_features, to_lora
from aag_hf.errors import InputError
from aag_hf.hyperlora import calibrate
from aag_hf.hyperlora.added_documents import with_added_documents
from aag_hf.hyperlora.document_states import DocumentStates
from aag_hf.hyperlora.memory_network import PIECE

D, R = 32, 4


def adapted(base, seed=3, **options):
    torch.manual_seed(seed)
    settings = {"r": R, "feature_dim": D, "hidden_dim": 8, "target_modules": ["down_proj"], "init_weights": False}
    config = HyperLoraConfig(hypernetwork="memory", **settings | options)
    model = get_peft_model(base, config).eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.get_base_model().hypernetworks.hyperlora_net["default"].parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return model


@pytest.fixture
def base(tiny_llama_dir):
    return AutoModelForCausalLM.from_pretrained(tiny_llama_dir)


@pytest.fixture
def model(base):
    return adapted(base)


def documents(count=3, tokens=7, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    states, embeddings = (torch.randn(count, tokens, D, generator=generator, dtype=dtype) for _ in range(2))
    mask = torch.arange(tokens) < torch.tensor([tokens - 2 * i for i in range(count)]).unsqueeze(1)
    mask[:, 0] = False
    return DocumentStates(states * mask.unsqueeze(-1), embeddings, mask)


def ids(rows=3, tokens=5, seed=1):
    return torch.randint(3, 200, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def network_of(model):
    return model.get_base_model().hypernetworks.hyperlora_net["default"]


def naive_write(network, given, document):
    """One document's memory and its tokens' gates, token by token, as the class's docstring has it."""
    z, e, mask = given.states[document], given.embeddings[document], given.mask[document]
    zero = torch.zeros_like(z[0])
    before = [zero if t == 0 else z[t - 1] * mask[t - 1] for t in range(len(z))]
    e = [e_t / e_t.square().mean().sqrt() * m for e_t, m in zip(e, mask)]
    tokens = torch.stack([torch.cat([b, z_t, e_t]) for b, z_t, e_t in zip(before, z, e)])
    y = network.block(tokens.unsqueeze(0), mask.unsqueeze(0))[0]
    total = torch.zeros(network.memories, network.r, network.width, dtype=z.dtype)
    gates = torch.zeros(len(z), network.memories, dtype=z.dtype)
    for m in range(network.memories):
        rows = slice(m * network.r, (m + 1) * network.r)
        for t in mask.nonzero().flatten().tolist():
            key = (
                network.key.weight[rows] @ before[t] + network.key.bias[rows] + network.key_of_block.weight[rows] @ y[t]
            )
            key = key / (key.square().sum() + 0.05).sqrt()
            gate = sigmoid(
                network.gate.weight[m] @ torch.cat([before[t], z[t]])
                + network.gate.bias[m]
                + network.gate_of_block.weight[m] @ y[t]
            )
            value = e[t] + 0.3 * network.value.weight @ e[t]
            total[m] += gate * torch.outer(key, value)
            gates[t, m] = gate
    length = gates.square().sum(0).sqrt()
    return total / length[:, None, None], gates / length


@pytest.mark.parametrize("memory_per_layer", [True, False])
def test_a_memory_equals_its_formula_with_every_gradient(base, memory_per_layer):
    network = network_of(adapted(base, memory_per_layer=memory_per_layer)).double()
    given = documents(dtype=torch.float64)
    wanted = torch.stack([naive_write(network, given, i)[0] for i in range(3)])
    got = network.write(given)
    torch.testing.assert_close(got, wanted)
    weights = dict(network.named_parameters())
    used = {name: weight for name, weight in weights.items() if not name.startswith("query")}
    cotangent = torch.randn(wanted.shape, dtype=wanted.dtype, generator=torch.Generator().manual_seed(5))
    left = torch.autograd.grad(got, used.values(), cotangent, allow_unused=True)
    right = torch.autograd.grad(wanted, used.values(), cotangent, allow_unused=True)
    for name, one, two in zip(used, left, right):
        torch.testing.assert_close(one, two, msg=lambda text, name=name: f"gradient of {name}: {text}")


@pytest.mark.parametrize("memory_per_layer", [True, False])
def test_the_gates_tell_how_strongly_each_token_is_written(base, memory_per_layer):
    model, given = adapted(base, memory_per_layer=memory_per_layer), documents()
    wanted = torch.stack([naive_write(network_of(model), given, i)[1] for i in range(3)])
    gates = model.gates(given)
    torch.testing.assert_close(gates, wanted)
    assert (gates[~given.mask] == 0).all() and not gates.requires_grad
    with pytest.raises(ValueError, match="no adapter named 'other' reads documents"):
        model.gates(given, adapter_name="other")


def test_padding_does_not_change_a_memory(model):
    given = documents()
    alone = model.memorize(
        DocumentStates(*(tensor[1:2, :5] for tensor in (given.states, given.embeddings, given.mask)))
    )
    torch.testing.assert_close(model.memorize(given).tensor[1:2], alone.tensor)


def test_a_document_longer_than_a_piece_is_written_whole(model):
    memory = model.memorize(documents(1, PIECE + 3))
    assert memory.tensor.shape == (1, 2, R, D) and memory.tensor.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fresh_adapter_changes_nothing_bit_for_bit(tiny_llama_dir, dtype):
    base = AutoModelForCausalLM.from_pretrained(tiny_llama_dir, dtype=dtype)
    expected = base(input_ids=ids()).logits
    config = HyperLoraConfig(
        hypernetwork="memory", r=R, feature_dim=D, target_modules=["down_proj"], static=True, static_r=2
    )
    model = get_peft_model(base, config)
    assert torch.equal(model(input_ids=ids(), memory=model.memorize(documents())).logits, expected)
    assert torch.equal(model(input_ids=ids(), documents=documents()).logits, expected)


def test_each_row_reads_its_own_memory_however_the_model_is_called(model):
    memory = model.memorize(documents(), ids=["a", "b", "c"])
    prompts = ids()
    alone = torch.cat([model(input_ids=prompts[i : i + 1], memory=memory[i]).logits for i in range(3)])
    torch.testing.assert_close(model(input_ids=prompts, memory=memory).logits, alone)
    torch.testing.assert_close(model(input_ids=prompts, documents=documents()).logits, alone)
    with hyperlora_features(model, memory=memory):
        torch.testing.assert_close(model.get_base_model()(input_ids=prompts).logits, alone)
    # Packed rows, whose adapters are found by their bounds.
    packed = {
        "input_ids": prompts.reshape(1, -1),
        "position_ids": torch.arange(5).repeat(3).unsqueeze(0),
        "cu_seq_lens_q": torch.tensor([0, 5, 10, 15], dtype=torch.int32),
        "cu_seq_lens_k": torch.tensor([0, 5, 10, 15], dtype=torch.int32),
        "max_length_q": 5,
        "max_length_k": 5,
        "use_cache": False,
    }
    torch.testing.assert_close(model(**packed, memory=memory).logits.reshape(alone.shape), alone)
    assert not torch.allclose(alone, model(input_ids=prompts, memory=memory[[1, 2, 0]]).logits)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}])
def test_decoding_uses_each_questions_memory(model, options):
    memory, settings = model.memorize(documents()), {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    together = model.generate(input_ids=ids(), memory=memory, **settings, **options)
    for i in range(3):
        alone = model.generate(input_ids=ids()[i : i + 1], memory=memory[i], **settings, **options)
        assert together[i, : alone.shape[1]].tolist() == alone[0].tolist()
        merged = model.generate(input_ids=ids()[i : i + 1], memory=memory[i], merge_adapter=True, **settings, **options)
        assert merged.tolist() == alone.tolist()


def test_several_questions_read_one_document(model):
    shared = DocumentStates(**documents(), rows=torch.tensor([2, 0, 2, 1]))
    memory = model.memorize(documents())
    expected = model(input_ids=ids(4), memory=memory[[2, 0, 2, 1]]).logits
    torch.testing.assert_close(model(input_ids=ids(4), documents=shared).logits, expected)


def test_gradients_reach_the_hypernetwork_through_the_model(base):
    model = adapted(base, static=True, static_r=2)
    cotangent = torch.randn(3, 5, base.config.vocab_size, generator=torch.Generator().manual_seed(2))

    def loss():
        return (model(input_ids=ids(), documents=documents()).logits * cotangent).sum()

    loss().backward()
    network = network_of(model)
    for name in ("key", "gate", "value"):
        weight = getattr(network, name).weight
        step = 1e-2 * weight.grad / weight.grad.norm()
        with torch.no_grad():
            weight += step
            above = loss().item()
            weight -= 2 * step
            below = loss().item()
            weight += step
        assert math.isclose((above - below) / 2, (weight.grad * step).sum().item(), rel_tol=0.02), name
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_gradients_are_the_same(base, reentrant):
    model = adapted(base, static=True, static_r=2).train()
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
            model.enable_input_require_grads()
        model.zero_grad()
        # The same documents are added: they are drawn once per pass, not again when activations are recomputed.
        torch.manual_seed(7)
        model(input_ids=ids(), documents=documents(), labels=ids()).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in network_of(model).named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("static", [False, True])
def test_an_exported_memory_gives_the_same_logits_as_a_plain_lora(tiny_llama_dir, tmp_path, static):
    from safetensors.torch import save_file

    model = adapted(AutoModelForCausalLM.from_pretrained(tiny_llama_dir), static=static, static_r=2)
    memory = model.memorize(documents())
    expected = model(input_ids=ids(1), memory=memory[1]).logits
    config, weights = to_lora(model, memory=memory[1])
    assert config.r == R + 2 * static
    config.save_pretrained(tmp_path)
    save_file(weights, tmp_path / "adapter_model.safetensors")
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_llama_dir), tmp_path).eval()
    torch.testing.assert_close(plain(input_ids=ids(1)).logits, expected)


def test_an_export_is_cut_to_the_nearest_update_of_its_rank(model):
    memory = model.memorize(documents())[0]
    _, exact = to_lora(model, memory=memory)
    config, cut = to_lora(model, memory=memory, rank=2)
    assert config.r == 2
    for name in (name for name in exact if "lora_A" in name):
        update = exact[name.replace("lora_A", "lora_B")] @ exact[name]
        nearest = cut[name.replace("lora_A", "lora_B")] @ cut[name]
        distance = torch.linalg.svdvals(update)[2:].square().sum().sqrt()
        torch.testing.assert_close(torch.linalg.norm(update - nearest), distance, rtol=1e-3, atol=1e-5)


def test_an_adapter_of_features_and_one_of_documents_add_up(base):
    model = adapted(base)
    torch.manual_seed(4)
    model.add_adapter("question", HyperLoraConfig(r=2, feature_dim=6, target_modules=["q_proj"], init_weights=False))
    memory, features = model.memorize(documents()), torch.randn(3, 6)
    by_document = model(input_ids=ids(), memory=memory).logits
    model.base_model.set_adapter(["default", "question"])
    both = model(input_ids=ids(), memory=memory, features=features).logits
    model.base_model.set_adapter(["question"])
    by_question = model(input_ids=ids(), features=features).logits
    assert not torch.allclose(both, by_document) and not torch.allclose(both, by_question)
    with pytest.raises(ValueError, match="memory was given, and the active adapters read features"):
        model(input_ids=ids(), memory=memory)
    model.base_model.set_adapter(["default", "question"])
    with pytest.raises(ValueError, match="adapter 'question' reads features, and none were given"):
        model(input_ids=ids(), memory=memory)
    with pytest.raises(ValueError, match="adapter 'default' reads documents, and none were given"):
        model(input_ids=ids(), features=features)
    with pytest.raises(ValueError, match="features of 3 questions and memory of 2 questions"):
        model(input_ids=ids(), memory=memory[:2], features=features)


def test_the_adapter_comes_back_from_its_folder_with_its_scales(base, tiny_llama_dir, tmp_path):
    model = adapted(base)
    calibrate(model, input_ids=ids(), labels=ids())
    memory = model.memorize(documents())
    expected = model(input_ids=ids(), memory=memory).logits
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_llama_dir), tmp_path).eval()
    torch.testing.assert_close(again(input_ids=ids(), memory=memory).logits, expected)


def test_scales_are_those_of_the_layers_inputs_and_of_the_stream_behind_them(base):
    model = adapted(base)
    seen = {}
    layers = model.get_base_model().model.layers
    for i, layer in enumerate(layers):
        layer.mlp.down_proj.base_layer.register_forward_pre_hook(lambda _, x, i=i: seen.update({i: x[0]}))
    layers[0].register_forward_hook(lambda *given: seen.update(stream=given[2]))
    calibrate(model, input_ids=ids())
    network = network_of(model)
    inputs = network.input_rms_down_proj_64x32
    for i in range(2):
        torch.testing.assert_close(inputs[i], seen[i][:, 1:].square().mean().sqrt())
    stream = seen["stream"][0] if isinstance(seen["stream"], tuple) else seen["stream"]
    torch.testing.assert_close(network.output_rms_down_proj_64x32[0], stream[:, 1:].square().mean().sqrt())


def test_the_decoder_of_a_t5_remembers(tiny_t5_dir):
    base = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5_dir)
    model = adapted(base, target_modules=r".*decoder.*\.wo")
    calibrate(model, input_ids=ids(), labels=ids())
    memory = model.memorize(documents())
    together = model.generate(input_ids=ids(), memory=memory, max_new_tokens=5, do_sample=False)
    for i in range(3):
        alone = model.generate(input_ids=ids()[i : i + 1], memory=memory[i], max_new_tokens=5, do_sample=False)
        assert together[i, : alone.shape[1]].tolist() == alone[0].tolist()


def test_memories_add_up_and_come_apart_again(model):
    memory = model.memorize(documents(), ids=["a", "b", "c"])
    both = memory[0] + memory[1]
    assert both.ids == ("a + b",)
    torch.testing.assert_close((both - memory[1]).tensor, memory[0].tensor)
    assert torch.equal(sum([memory[0], memory[1]]).tensor, both.tensor)
    torch.testing.assert_close(memory.sum(weights=[1, 0.5, 0]).tensor, (memory[0] + 0.5 * memory[1]).tensor)
    assert memory[[2, 0]].ids == ("c", "a") and len(memory[1:]) == 2
    assert DocumentMemory.cat([memory[:1], memory[2:]]).ids == ("a", "c")
    # What was never added can be taken out: the documentation says so.
    assert (memory[0] - memory[1]).ids == ("a - b",)


@pytest.mark.parametrize("name", ["folder", "memories.safetensors"])
def test_memories_are_kept_as_safetensors(model, tmp_path, name):
    memory = model.memorize(documents(), ids=["a", "b", "ü"])
    memory.save_pretrained(tmp_path / name)
    again = DocumentMemory.from_pretrained(tmp_path / name)
    assert torch.equal(again.tensor, memory.tensor)
    assert (again.ids, again.made_by, again.base_model) == (memory.ids, memory.made_by, memory.base_model)


def test_the_texts_go_with_the_rows(model, tmp_path):
    memory = replace(model.memorize(documents(), ids=["a", "b", "c"]), texts=("one", "two", "three"))
    assert memory[[2, 0]].texts == ("three", "one")
    assert memory.sum().texts == ("one\n\ntwo\n\nthree",)
    assert (memory[0] + memory[1]).texts == ("one\n\ntwo",)
    # What is left in a difference is no text.
    assert (memory[0] - memory[1]).texts is None
    assert DocumentMemory.cat([memory[:1], memory[2:]]).texts == ("one", "three")
    assert DocumentMemory.cat([memory, replace(memory, texts=None)]).texts is None
    memory.save_pretrained(tmp_path)
    assert DocumentMemory.from_pretrained(tmp_path).texts == memory.texts
    with pytest.raises(InputError, match="1 texts for 3 memories"):
        replace(memory, texts=("one",))


def test_memories_that_cannot_be_read_are_refused(model, tiny_llama_dir, tmp_path):
    memory = model.memorize(documents())
    other = adapted(AutoModelForCausalLM.from_pretrained(tiny_llama_dir), seed=4)
    with pytest.raises(ValueError, match="made by another model than adapter 'default'"):
        other(input_ids=ids(), memory=memory)
    with pytest.raises(InputError, match="made by different models"):
        memory + other.memorize(documents())
    for options, shape in (({"r": 2}, "2, 2, 32"), ({"layers_to_transform": [1]}, "1, 4, 32")):
        smaller = adapted(AutoModelForCausalLM.from_pretrained(tiny_llama_dir), **options)
        with pytest.raises(ValueError, match=rf"expects \(batch, {shape}\)"):
            smaller(input_ids=ids(), memory=memory)
    with pytest.raises(ValueError, match="memory has 2 rows, the input has 3"):
        model(input_ids=ids(), memory=memory[:2])
    with pytest.raises(ValueError, match="memory has 2 rows, the input has 3"):
        model.generate(input_ids=ids(), memory=memory[:2])
    with pytest.raises(ValueError, match="expected a DocumentMemory"):
        model(input_ids=ids(), memory=documents())
    with pytest.raises(ValueError, match="active adapters read documents"):
        model(input_ids=ids(), features=torch.ones(3, 4))
    with pytest.raises(ValueError, match="one question or document at a time"):
        to_lora(model, memory=memory)
    (tmp_path / "memory.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="no document memories, or damaged ones"):
        DocumentMemory.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        DocumentMemory.from_pretrained(tmp_path / "none.safetensors")


@pytest.mark.parametrize("change", [{"ids": [1, 2, 3]}, {"texts": [1, 2, 3]}, {"ids": "abc"}, {"texts": {}}])
def test_a_file_of_memories_with_other_names_than_texts_is_refused(model, tmp_path, change):
    memory = model.memorize(documents())
    made = {"made_by": "x", "ids": ["a", "b", "c"], "base_model": None, "texts": None} | change
    save_file({"memory": memory.tensor}, tmp_path / "memory.safetensors", metadata={"memory": json.dumps(made)})
    with pytest.raises(InputError, match=f"{tmp_path}/memory.safetensors: no document memories, or damaged ones"):
        DocumentMemory.from_pretrained(tmp_path)


def test_only_memories_add_to_a_memory(model):
    memory = model.memorize(documents())
    assert torch.equal(sum([memory, memory]).tensor, 2 * memory.tensor)
    for other in (5, 1.0, True, None, "a", memory.tensor):
        for operation in (lambda m, o: m + o, lambda m, o: o + m, lambda m, o: m - o):
            with pytest.raises(TypeError):
                operation(memory, other)


def test_in_training_other_documents_are_added_as_often_as_the_share_says():
    states = replace(documents(5), rows=torch.tensor([0, 0, 3, 4] * 500))
    weights = with_added_documents(states, 0.25).weights
    own = torch.nn.functional.one_hot(states.rows, 5)
    assert weights.unique().tolist() == [0, 1] and (weights[own.bool()] == 1).all()
    added = weights.sum(1) - 1
    assert abs((added > 0).float().mean() - 0.25) < 0.05
    assert added.unique().tolist() == [0, 1, 2, 3]
    # Any other document is as likely as any other.
    assert ((weights - own)[states.rows == 3].mean(0)[[0, 1, 2, 4]] - 0.125).abs().max() < 0.05
    assert torch.equal(with_added_documents(states, 0.0).weights, own.float())
    # There may be fewer documents than could be added.
    assert with_added_documents(documents(2), 1.0).weights.tolist() == [[1, 1], [1, 1]]
    assert with_added_documents(documents(1), 1.0).weights.tolist() == [[1]]


def test_a_training_pass_reads_the_sum_and_an_evaluation_the_document_itself(base, tiny_llama_dir):
    model = adapted(base, added_documents=1.0)
    states = documents(2)
    memory = model.memorize(states)
    alone = model(input_ids=ids(2), documents=states).logits
    torch.testing.assert_close(alone, model(input_ids=ids(2), memory=memory).logits)
    both = model(input_ids=ids(2), memory=memory.sum()[[0, 0]]).logits
    assert (both - alone).abs().max() > 1e-4
    model.train()
    torch.testing.assert_close(model(input_ids=ids(2), documents=states).logits, both)


def test_states_that_cannot_be_read_are_refused(model):
    given = documents()
    broken = DocumentStates(given.states.clone(), given.embeddings, given.mask)
    broken.states[1, 2, 0] = math.nan
    with pytest.raises(ValueError, match="states of document 1 have NaN"):
        model.memorize(broken)
    with pytest.raises(ValueError, match="expected widths 32 and 32"):
        model.memorize(DocumentStates(given.states[..., :8], given.embeddings, given.mask))
    with pytest.raises(ValueError, match="encode them with a DocumentEncoder"):
        model.memorize(DocumentStates(given.states))


def test_layers_that_do_not_write_into_the_residual_stream_are_refused(base):
    with pytest.raises(ValueError, match="name down_proj"):
        adapted(base, target_modules=["down_proj", "up_proj"])
