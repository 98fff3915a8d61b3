"""Bases in 8 and 4 bits from the command line: train, reload in any precision, evaluate, ask, generate, export."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from aag_hf import AwakeningModel
from aag_hf.awakening import share_weights
from aag_hf.awakening.loading import load_language_model, load_tokenizer
from aag_hf.cli.main import main
from aag_hf.cli.options import LoadingOptions
from aag_hf.data import load_countries, write_records
from aag_hf.errors import InputError

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install aag-hf[quantization]")

FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen": (Qwen3Config, Qwen3ForCausalLM),
    "gemma": (Gemma2Config, Gemma2ForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
}
TRAINER = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--report_to", "none", "--save_strategy", "no"]
TRAINER += ["--disable_tqdm", "true", "--learning_rate", "0.01", "--feature_dim", "8", "--r", "2", "--use_cpu", "true"]
TRAINER += ["--prompt_max_length", "400"]


@pytest.fixture(scope="module")
def make_base(tmp_path_factory, tiny_tokenizer):
    """A random model of a family, whose rows are as long as the blocks that 4-bit weights come in."""
    folder = tmp_path_factory.mktemp("models")

    def make(family):
        if not (folder / family).exists():
            config, model = FAMILIES[family]
            torch.manual_seed(0)
            sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 16}
            heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
            tokens = {"vocab_size": len(tiny_tokenizer), "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1}
            model(config(**sizes, **heads, **tokens)).save_pretrained(folder / family)
            tiny_tokenizer.save_pretrained(folder / family)
        return str(folder / family)

    return make


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    records = [
        record | {"compressed_context": "short", "generated_context": "from memory"}
        for record in load_countries()["train"][:12]
    ]
    write_records(records, folder / "train.jsonl")
    return folder


def train(base, data, output, *options):
    files = ["--model_name_or_path", base, "--train_file", str(data / "train.jsonl"), "--output_dir", str(output)]
    return main(["train", *files, *TRAINER, *map(str, options)])


def answers(folder, bits=None):
    loading = LoadingOptions(quantization=bits).loading_arguments()
    model = AwakeningModel.from_pretrained(folder, **loading)
    with torch.no_grad():
        features = model.encode_features(["who?"])
        ids = model.tokenizer("who?", return_tensors="pt")["input_ids"]
        return model.reader(input_ids=ids, features=features).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_a_base_in_8_bits_trains_and_reloads_in_8_and_32(family, make_base, data, tmp_path, caplog):
    base, reader = make_base(family), tmp_path / "reader"
    assert train(base, data, reader, "--quantization", "8bit") == 0
    assert json.loads((reader / "config.json").read_text())["quantization"] == "8bit"
    eight = answers(reader, "8bit")
    loading = LoadingOptions(quantization="8bit").loading_arguments()
    untrained = load_language_model(base, **loading).eval()
    ids = load_tokenizer(base)("who?", return_tensors="pt")["input_ids"]
    assert not torch.allclose(untrained(input_ids=ids).logits, eight, atol=1e-3)
    assert torch.equal(answers(reader, "8bit"), eight) and "trained on a base" not in caplog.text
    full = answers(reader)
    assert "trained on a base in 8bit, loaded over one in float32" in caplog.text
    assert not torch.equal(full, eight)
    torch.testing.assert_close(full, eight, rtol=0.1, atol=0.1)

    asked = ["--model", str(reader), "--question", "who?", "--output_dir", str(tmp_path / "lora")]
    assert main(["export", *asked, "--quantization", "8bit"]) == 0
    vanilla = PeftModel.from_pretrained(load_language_model(base, **loading), tmp_path / "lora").eval()
    torch.testing.assert_close(vanilla(input_ids=ids).logits, eight, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_every_command_takes_a_base_in_few_bits(bits, make_base, data, tmp_path, capsys):
    base, few = make_base("llama"), ["--quantization", bits]
    records = str(data / "train.jsonl")
    teacher = ["--method", "lora", "--context", "passages", "--output_dir", tmp_path / "teacher"]
    assert train(base, data, tmp_path / "teacher", *teacher, *few) == 0
    student = ["--teacher", tmp_path / "teacher", "--gradient_checkpointing", "true"]
    assert train(base, data, tmp_path / "student", *student, *few) == 0

    files = ["--model_name_or_path", base, "--train_file", records, "--output_dir", str(tmp_path / "generator")]
    generator_options = [option for option in TRAINER if option not in ("--feature_dim", "8")]
    assert main(["train-generator", *files, *generator_options, *few]) == 0
    generating = ["--model_name_or_path", base, "--generator", str(tmp_path / "generator"), "--input", records]
    generating += ["--output", str(tmp_path / "out.jsonl"), "--context_max_length", "3"]
    assert main(["generate", *generating, *few]) == 0 and "trained over" not in capsys.readouterr().err
    assert main(["generate", *generating, "--overwrite", "true"]) == 0
    assert f"trained over a base in {bits}, loaded over one in full precision" in capsys.readouterr().err

    measured = ["--model", str(tmp_path / "student"), "--model_name_or_path", base, "--input", records]
    measured += ["--max_samples", "4", "--answer_max_length", "3", "--output_dir", str(tmp_path / "results")]
    assert main(["evaluate", *measured, *few]) == 0
    assert main(["evaluate", *measured]) == 2
    assert main(["ask", "--model", str(tmp_path / "student"), "--question", "who?", *few]) == 0


def test_the_paper_s_recipe_runs_over_any_base_and_draws_its_records(make_base, data, tmp_path):
    recipe = Path(__file__).parents[2] / "configs" / "recipes" / "llama_paper.yaml"
    small = ["--feature_dim", "4", "--num_train_epochs", "1", "--eval_steps", "1", "--use_cpu", "true", "--report_to"]
    small += ["none", "--dev_file", str(data / "train.jsonl"), "--max_train_samples", "8", "--max_eval_samples", "5"]
    files = ["--train_file", str(data / "train.jsonl"), "--output_dir", str(tmp_path / "reader")]
    assert main(["train", "--config", str(recipe), "--model_name_or_path", make_base("qwen"), *files, *small]) == 0
    config = json.loads((tmp_path / "reader" / "config.json").read_text())
    adapter = json.loads((tmp_path / "reader" / "reader" / "adapter_config.json").read_text())
    assert config["quantization"] == "8bit" and "eval_exact_match" in config["training_figures"]
    assert (adapter["r"], adapter["lora_alpha"], adapter["hypernetwork"]) == (8, 16, "mlp")
    assert len(adapter["target_modules"]) == 7
    # Eight questions at one a pass and eight passes a step.
    state = json.loads(next(tmp_path.glob("reader.checkpoints/*/trainer_state.json")).read_text())
    assert state["global_step"] == 1


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_two_views_share_quantised_weights_whichever_runs_first(bits, make_base):
    base = load_language_model(make_base("llama"), **LoadingOptions(quantization=bits).loading_arguments()).eval()
    ids = torch.tensor([[5, 6, 7]])
    views = [share_weights(base), share_weights(base)]
    logits = [model(input_ids=ids).logits for model in (views[1], base, views[0], share_weights(views[1]))]
    assert all(torch.equal(other, logits[0]) for other in logits)
    layers = [model.model.layers[0].mlp.up_proj for model in (base, *views)]
    assert len({layer.weight.data_ptr() for layer in layers}) == 1
    if bits == "8bit":
        assert len({layer.state.CB.data_ptr() for layer in layers}) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "full"], "such weights are not trained: choose another method"),
        (["--quantization", "2bit"], "invalid choice: '2bit'"),
    ],
)
def test_what_cannot_be_done_in_few_bits_is_refused(options, message, make_base, data, tmp_path, capsys):
    assert train(make_base("llama"), data, tmp_path / "x", "--quantization", "8bit", *options) == 2
    assert message in capsys.readouterr().err


def test_a_device_without_kernels_is_named_before_a_model_is_loaded():
    with pytest.raises(InputError, match="bitsandbytes cannot compute on meta here"):
        LoadingOptions(quantization="8bit").quantization_config(torch.float32, torch.device("meta"))


def test_a_base_that_was_saved_quantised_works_without_an_option_and_is_remembered(make_base, data, tmp_path):
    loading = LoadingOptions(quantization="8bit").loading_arguments()
    AutoModelForCausalLM.from_pretrained(make_base("llama"), **loading).save_pretrained(tmp_path / "base")
    load_tokenizer(make_base("llama")).save_pretrained(tmp_path / "base")
    assert train(str(tmp_path / "base"), data, tmp_path / "reader") == 0
    assert json.loads((tmp_path / "reader" / "config.json").read_text())["quantization"] == "8bit"
    assert torch.equal(answers(tmp_path / "reader"), answers(tmp_path / "reader"))
