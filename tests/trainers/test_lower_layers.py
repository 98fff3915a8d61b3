"""Training above kept states is the same training, and refused where it would not be."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BloomConfig, BloomForCausalLM, GPT2Config, GPT2LMHeadModel

from aag_hf.cli.main import main
from aag_hf.collators import DataCollatorForContextDistillation
from aag_hf.data import load_countries, write_records
from aag_hf.errors import InputError
from aag_hf.trainers.lower_layers import UpperLayers, WithLowerStates

RECORDS = load_countries()["train"][:12]


def adapted(base, **options):
    torch.manual_seed(1)
    settings = {"target_modules": ["down_proj"], "layers_to_transform": [1], "init_lora_weights": False}
    return get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **settings | options))


@pytest.fixture
def reader(tiny_llama_dir):
    return adapted(AutoModelForCausalLM.from_pretrained(tiny_llama_dir))


def test_loss_and_gradients_are_those_of_the_whole_model(reader, tiny_tokenizer):
    collator = DataCollatorForContextDistillation(tiny_tokenizer)
    upper = UpperLayers(reader)
    assert upper.first == 1
    above = WithLowerStates(collator, upper)
    above(RECORDS[4:])
    gradients = []
    for model, batch in ((reader, collator(RECORDS)), (upper.model, above(RECORDS))):
        reader.zero_grad()
        output = model(**batch)
        output.loss.backward()
        gradients.append([output.loss, *(p.grad.clone() for p in reader.parameters() if p.requires_grad)])
    for left, right in zip(*gradients, strict=True):
        torch.testing.assert_close(left, right)


def test_rows_are_kept_while_there_is_room(reader, tiny_tokenizer):
    above = WithLowerStates(DataCollatorForContextDistillation(tiny_tokenizer), UpperLayers(reader), room=20_000)
    first = above(RECORDS)["inputs_embeds"]
    assert 0 < above._kept.bytes <= 20_000
    torch.testing.assert_close(above(RECORDS)["inputs_embeds"], first)


def train(base, file, output, *options):
    command = ["train", "--model_name_or_path", base, "--train_file", file, "--output_dir", str(output)]
    command += ["--max_steps", "4", "--per_device_train_batch_size", "4", "--learning_rate", "0.01"]
    # Adam would divide rounding errors by their own size where a gradient is zero.
    command += ["--optim", "sgd", "--save_strategy", "no"]
    return main([*command, "--report_to", "none", "--disable_tqdm", "true", "--r", "4", *options])


def test_the_command_trains_the_same_adapter(tiny_llama_dir, tmp_path):
    file = str(tmp_path / "train.jsonl")
    write_records(RECORDS, file)
    document = ["--adapter_from", "document"]
    assert train(tiny_llama_dir, file, tmp_path / "whole", *document) == 0
    assert train(tiny_llama_dir, file, tmp_path / "above", *document, "--keep_lower_states", "true") == 0
    from safetensors.torch import load_file

    whole, above = (load_file(tmp_path / n / "reader" / "adapter_model.safetensors") for n in ("whole", "above"))
    assert whole.keys() == above.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(above[name], tensor, msg=lambda text, name=name: f"{name}: {text}")


def test_a_model_whose_upper_layers_say_something_else_is_refused(tiny_tokenizer):
    settings = {"vocab_size": len(tiny_tokenizer), "n_layer": 2, "n_head": 2}
    for base, targets, said in (
        (GPT2LMHeadModel(GPT2Config(**settings, n_embd=16)), ["c_proj"], "has no list of layers"),
        (BloomForCausalLM(BloomConfig(**settings, hidden_size=16)), ["dense_4h_to_h"], "has no list of layers"),
    ):
        with pytest.raises(InputError, match=said):
            UpperLayers(adapted(base, target_modules=targets))


def test_what_needs_the_lower_layers_is_refused(tiny_llama_dir, tmp_path, capsys):
    base = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    with pytest.raises(InputError, match="reach the first layer already"):
        UpperLayers(adapted(base, layers_to_transform=[0, 1]))
    file = str(tmp_path / "train.jsonl")
    write_records(RECORDS, file)
    options = ["--adapter_from", "document", "--keep_lower_states", "true", "--padding_free", "true"]
    assert train(tiny_llama_dir, file, tmp_path / "reader", *options) == 2
    assert "keep_lower_states does not go with padding_free" in capsys.readouterr().err
