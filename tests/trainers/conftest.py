"""Readers of every kind in float64, and records to train them on."""

import random
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from aag_hf import FiDT5ForConditionalGeneration, HyperLoraConfig

FEATURES = 6


@pytest.fixture(params=["llama", "t5"])
def kind(request):
    directory = request.getfixturevalue(f"tiny_{request.param}_dir")
    if request.param == "llama":
        return SimpleNamespace(
            auto=AutoModelForCausalLM,
            directory=directory,
            task_type="CAUSAL_LM",
            target_modules=["q_proj", "v_proj", "down_proj"],
            is_encoder_decoder=False,
            sharpness=4,
        )
    return SimpleNamespace(
        auto=AutoModelForSeq2SeqLM,
        directory=directory,
        task_type="SEQ_2_SEQ_LM",
        target_modules=["q", "v", "wo"],
        is_encoder_decoder=True,
        sharpness=1,
    )


@pytest.fixture
def load(kind):
    """``load("full" | "lora" | "hyperlora")``: the kind's model, sharp enough for its input to matter."""

    def load(adapter="full", seed=1, dropout=0.0, **options):
        model = kind.auto.from_pretrained(kind.directory, dtype=torch.float64)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(kind.sharpness)
        torch.manual_seed(seed)
        if adapter == "full":
            return model
        shared = {"task_type": kind.task_type, "target_modules": kind.target_modules, "r": 2, "lora_dropout": dropout}
        if adapter == "lora":
            return get_peft_model(model, LoraConfig(**shared, **options)).double()
        options = {"feature_dim": FEATURES, "hidden_dim": 8, **options}
        return get_peft_model(model, HyperLoraConfig(**shared, **options)).double()

    return load


@pytest.fixture
def records():
    """Six records; their questions and answers differ in length."""
    draw = random.Random(0)
    return [
        {
            "id": f"q{i}",
            "question": "why " * (1 + i % 3) + f"{i}?",
            "answers": ["so it is"[: 2 + i]],
            "compressed_context": f"{i} " * (2 + i),
            "features": [draw.gauss(0, 1) for _ in range(FEATURES)],
        }
        for i in range(6)
    ]


@pytest.fixture
def options(tmp_path):
    """Arguments of short, reproducible runs."""
    return {
        "output_dir": str(tmp_path / "run"),
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 4,
        "logging_steps": 1,
        "learning_rate": 1e-2,
        "save_strategy": "no",
    }


@pytest.fixture
def passage_records(records):
    """Four records with 2, 1, 3 and 2 passages to read."""
    return [
        {**record, "ctxs": [{"title": f"t{p}", "text": f"{p} " * (1 + (i + p) % 3)} for p in range(count)]}
        for i, (record, count) in enumerate(zip(records, [2, 1, 3, 2]))
    ]


@pytest.fixture
def load_fid(tiny_t5_dir):
    """``load_fid("full" | "hyperlora")``: a Fusion-in-Decoder reader whose attentions can be read."""

    def load_fid(adapter="full", seed=1, **options):
        model = FiDT5ForConditionalGeneration.from_pretrained(
            tiny_t5_dir, dtype=torch.float64, attn_implementation="eager"
        )
        torch.manual_seed(seed)
        if adapter == "full":
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.05 * torch.randn_like(parameter))
            return model
        config = HyperLoraConfig(
            task_type="SEQ_2_SEQ_LM",
            target_modules=["q", "v", "wo"],
            r=2,
            feature_dim=FEATURES,
            hidden_dim=8,
            **options,
        )
        return get_peft_model(model, config).double()

    return load_fid
