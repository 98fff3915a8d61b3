"""The composed model: question in, answer and context out, the same after saving and loading."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from aag_hf import AwakeningConfig, AwakeningModel, AwakeningPipeline, HyperLoraConfig, QuestionEncoder
from aag_hf.awakening import share_weights
from aag_hf.awakening.aggregation import DraftOptions
from aag_hf.awakening.decoding import first_line, generate_texts
from aag_hf.awakening.loading import load_language_model, load_part
from aag_hf.errors import InputError

QUESTIONS = [f"what is the {noun} of {place}?" for noun in ("capital", "currency") for place in "ABCDEFG"]


@pytest.fixture(params=["llama", "t5"])
def model(request, tiny_llama_dir, tiny_t5_dir, tiny_tokenizer):
    auto, path, task, names = (
        (AutoModelForCausalLM, tiny_llama_dir, "CAUSAL_LM", ["q_proj", "down_proj"])
        if request.param == "llama"
        else (AutoModelForSeq2SeqLM, tiny_t5_dir, "SEQ_2_SEQ_LM", ["q", "wo"])
    )
    base = auto.from_pretrained(path)
    torch.manual_seed(1)
    adapter = HyperLoraConfig(task_type=task, feature_dim=8, r=2, target_modules=names, init_weights=False)
    lora = LoraConfig(task_type=task, r=2, target_modules=names, init_lora_weights=False)
    config = AwakeningConfig(path, context="generated", answer_max_length=5, context_max_length=6)
    encoder = QuestionEncoder.from_backbone(base, tiny_tokenizer, feature_dim=8).fit_whitening(QUESTIONS)
    reader = get_peft_model(share_weights(base), adapter)
    generator = get_peft_model(share_weights(base), lora)
    return AwakeningModel(config, reader, tiny_tokenizer, encoder, generator).eval()


def test_every_question_gets_an_answer_a_context_and_timings(model):
    output = model.generate(QUESTIONS)
    assert len(output.answers) == len(output.contexts) == len(QUESTIONS)
    assert output.features.shape == (len(QUESTIONS), 8) and set(output.seconds) == {"context", "features", "answer"}


def test_answers_do_not_depend_on_batch_mates(model):
    together = model.generate(QUESTIONS)
    alone = [model.generate([question]) for question in QUESTIONS[:4]]
    assert [output.answers[0] for output in alone] == together.answers[:4]
    assert [output.contexts[0] for output in alone] == together.contexts[:4]


def test_drafts_are_read_with_the_adapter_of_their_own_question(model):
    greedy, contexts = DraftOptions(num_answers=3, top_p=1e-9), [f"about {question}" for question in QUESTIONS]
    drawn = model.generate(QUESTIONS, contexts=contexts, drafts=greedy)
    assert drawn.answers == model.generate(QUESTIONS, contexts=contexts).answers
    output = model.generate(QUESTIONS, drafts=DraftOptions(num_contexts=3, aggregation="marginal"))
    alone = [model.generate([q], drafts=DraftOptions(num_contexts=3, aggregation="marginal")) for q in QUESTIONS[:2]]
    assert [one.answers[0] for one in alone] == output.answers[:2]


def test_the_head_of_a_frozen_model_never_sees_states_that_make_torch_copy_the_vocabulary(model):
    seen = []
    head = model.generator.get_output_embeddings()
    handle = head.register_forward_hook(lambda _, args, output: seen.append(args[0].is_contiguous()))
    try:
        model.write_contexts(QUESTIONS[:3])
    finally:
        handle.remove()
    assert len(seen) > 1 and all(seen)
    assert not head._forward_pre_hooks


def test_base_weights_exist_once(model):
    names = {"q.weight", "q_proj.base_layer.weight", "q.base_layer.weight", "q_proj.weight"}
    first_layers = [
        parameter
        for part in (model.reader, model.generator, model.question_encoder)
        for name, parameter in part.named_parameters()
        if any(name.endswith(suffix) for suffix in names)
    ]
    assert len({parameter.data_ptr() for parameter in first_layers}) == len(first_layers) // 3


def test_adapters_of_one_view_leave_the_others_alone(tiny_llama_dir):
    base = AutoModelForCausalLM.from_pretrained(tiny_llama_dir).eval()
    ids = torch.tensor([[5, 6, 7]])
    before = base(ids).logits
    view = get_peft_model(share_weights(base), LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    assert not torch.allclose(view.eval()(ids).logits, before)
    assert torch.equal(base(ids).logits, before)


def test_loaded_in_a_fresh_process_it_gives_the_same_answers(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    expected = model.generate(QUESTIONS)
    program = (
        "import json, sys; from aag_hf import AwakeningModel; "
        "o = AwakeningModel.from_pretrained(sys.argv[1]).generate(json.loads(sys.argv[2])); "
        "print(json.dumps([o.answers, o.contexts]))"
    )
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(tmp_path / "model"), json.dumps(QUESTIONS)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(result.stdout.splitlines()[-1]) == [expected.answers, expected.contexts]


def test_over_half_precision_plain_adapters_take_its_type_and_hypernetworks_keep_theirs(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = AwakeningModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    adapters = {"lora_": loaded.generator, "hyperlora_net": loaded.reader}
    types = {name: {p.dtype for n, p in part.named_parameters() if name in n} for name, part in adapters.items()}
    assert types == {"lora_": {torch.bfloat16}, "hyperlora_net": {torch.float32}}
    assert loaded.generate(QUESTIONS[:2]).answers


def test_saved_model_refers_to_its_base_and_does_not_copy_it(model, tmp_path):
    model.save_pretrained(tmp_path)
    base_size = sum(p.numel() for p in model.question_encoder.backbone.parameters()) * 4
    assert sum(file.stat().st_size for file in tmp_path.rglob("*.safetensors")) < base_size


def test_pipeline_takes_one_question_or_many(model):
    ask = AwakeningPipeline(model)
    one = ask(QUESTIONS[0])
    assert set(one) == {"question", "answer", "score", "context", "seconds"}
    assert ask(QUESTIONS[:2])[0]["answer"] == one["answer"]


def test_given_contexts_replace_generated_ones(model):
    output = model.generate(QUESTIONS[:2], contexts=["one", "two"])
    assert output.contexts == ["one", "two"]


def test_a_reader_that_needs_contexts_says_so_without_a_generator(model):
    model.generator = None
    with pytest.raises(InputError, match="no generator: pass contexts"):
        model.generate(QUESTIONS[:1])


def test_a_single_string_is_refused(model):
    with pytest.raises(InputError, match="got one string"):
        model.generate("who?")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected what AwakeningModel saved"):
        AwakeningModel.from_pretrained(tmp_path)


def test_adapter_of_another_base_is_refused(tiny_llama_dir, tiny_tokenizer, tmp_path):
    base = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    reader = get_peft_model(share_weights(base), LoraConfig(target_modules=["q_proj"]))
    AwakeningModel(AwakeningConfig(tiny_llama_dir), reader, tiny_tokenizer).save_pretrained(tmp_path)
    config = base.config.__class__(**{**base.config.to_dict(), "hidden_size": 64, "head_dim": 16})
    with pytest.raises(InputError, match="does not fit"):
        AwakeningModel.from_pretrained(tmp_path, base_model=AutoModelForCausalLM.from_config(config))


def test_a_merged_generator_writes_the_same_and_leaves_the_base_alone(model, tmp_path):
    model.save_pretrained(tmp_path)
    base = model.question_encoder.backbone
    before = {name: parameter.clone() for name, parameter in base.named_parameters()}
    merged = load_part(tmp_path / "generator", base, merge=True)
    assert not any("lora_" in name for name, _ in merged.named_parameters())
    assert all(torch.equal(parameter, before[name]) for name, parameter in base.named_parameters())
    expected = model.write_contexts(QUESTIONS)
    model.generator = merged
    assert model.write_contexts(QUESTIONS) == expected


def test_texts_come_back_in_the_order_of_the_records(model):
    records = [{"id": str(i), "question": "x" * (9 - i), "features": [0.1] * 8} for i in range(9)]
    collator = model.reader_collator("none")
    forwards = generate_texts(model.reader, collator, records, max_new_tokens=3, batch_size=2).texts
    backwards = generate_texts(model.reader, collator, records[::-1], max_new_tokens=3, batch_size=4).texts
    assert forwards == backwards[::-1]


@pytest.mark.parametrize(("text", "answer"), [(" Suva\nQuestion: x", "Suva"), ("\n Suva", "Suva"), ("", "")])
def test_an_answer_ends_at_the_line(text, answer):
    assert first_line(text) == answer


def test_a_checkpoint_s_own_way_of_generating_does_not_apply(model):
    greedy = model.generate(QUESTIONS[:2], contexts=["one", "two"]).answers
    config = model.reader.get_base_model().generation_config
    for name, value in {"do_sample": True, "temperature": 9.0, "num_beams": 2, "repetition_penalty": 9.0}.items():
        setattr(config, name, value)
    config.suppress_tokens, config.no_repeat_ngram_size = [5, 6, 7], 1
    assert model.generate(QUESTIONS[:2], contexts=["one", "two"]).answers == greedy


def test_a_checkpoint_without_all_weights_is_refused(tiny_llama_dir, tmp_path):
    folder = shutil.copytree(tiny_llama_dir, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 weights, such as model\.layers\.0\.mlp\.up_proj\.weight"):
        load_language_model(str(folder))


def test_an_adapter_without_all_weights_is_refused(model, tmp_path):
    model.save_pretrained(tmp_path)
    file = tmp_path / "generator" / "adapter_model.safetensors"
    weights = load_file(file)
    del weights[sorted(weights)[0]]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match="lacks 1 weights, such as"):
        AwakeningModel.from_pretrained(tmp_path)


def test_a_context_that_is_cut_is_said(model):
    model.config.prompt_max_length = 60
    with pytest.warns(UserWarning, match="1 prompts lost the end of their context"):
        model.generate(QUESTIONS[:2], contexts=["one " * 30, "two"])


@pytest.mark.parametrize("option", [{"num_return_sequences": 2, "num_beams": 2}, {"return_dict_in_generate": True}])
def test_what_gives_another_number_of_texts_than_questions_is_refused(model, option):
    # The texts of one question would be taken for those of the next.
    with pytest.raises(InputError, match=f"{next(iter(option))} is (2|True): only .* one text for each question"):
        model.generate(QUESTIONS, contexts=QUESTIONS, **option)
    with pytest.raises(InputError, match="batch_size is 0: expected at least 1"):
        model.generate(QUESTIONS, contexts=QUESTIONS, batch_size=0)


def test_a_model_saved_over_another_one_is_the_same_when_it_is_loaded(model, tmp_path):
    model.save_pretrained(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "generator" / "old.safetensors").write_text("x")
    for notes in (tmp_path / "notes.txt", tmp_path / "teacher" / "notes.txt"):
        notes.parent.mkdir(exist_ok=True)
        notes.write_text("mine")
    base = load_language_model(model.config.base_model_name_or_path)
    AwakeningModel(AwakeningConfig(base.name_or_path), base, model.tokenizer).save_pretrained(tmp_path)
    again = AwakeningModel.from_pretrained(tmp_path)
    assert again.generator is again.question_encoder is None and type(again.reader) is type(base)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"config.json", "reader", "tokenizer", "notes.txt", "teacher"}


def test_folders_that_hold_no_saved_part_are_not_emptied(model, tmp_path):
    for name in ("reader", "generator"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "code.py").write_text("mine")
    model.save_pretrained(tmp_path)
    assert all((tmp_path / name / "code.py").exists() for name in ("reader", "generator"))
    assert AwakeningModel.from_pretrained(tmp_path).generator is not None
