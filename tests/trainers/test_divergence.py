"""Training on numbers that are not finite stops at once, with the step, the term and the records."""

import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM

from aag_hf import HyperLoraConfig
from aag_hf.collators import DataCollatorForContextDistillation
from aag_hf.errors import DivergenceError, InputError
from aag_hf.trainers import ContextDistillationConfig, ContextDistillationTrainer

RECORDS = [
    {"id": f"q{i}", "question": f"where is {i}?", "answers": [f"in {i}"], "features": [1.0, 0.5, 0.1 * i]}
    for i in range(4)
]


@pytest.fixture
def train(tiny_llama_dir, tiny_tokenizer, tmp_path):
    def train(spoil=lambda model: None, records=RECORDS):
        torch.manual_seed(0)
        model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(tiny_llama_dir),
            HyperLoraConfig(feature_dim=3, r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"),
        )
        spoil(model)
        arguments = ContextDistillationConfig(
            str(tmp_path), max_steps=3, use_cpu=True, report_to=[], disable_tqdm=True, per_device_train_batch_size=2
        )
        collator = DataCollatorForContextDistillation(tiny_tokenizer, needs_features=True)
        trainer = ContextDistillationTrainer(model, arguments, train_dataset=records, data_collator=collator)
        trainer.train()
        return model

    return train


@torch.no_grad()
def nan_in_the_base(model):
    model.get_base_model().model.layers[-1].mlp.down_proj.weight[0, 0] = torch.nan


def nan_in_a_gradient(model):
    parameter = next(p for n, p in model.named_parameters() if p.requires_grad and "head_b" in n)
    parameter.register_hook(lambda gradient: gradient * torch.inf)


def test_a_loss_stops_it_by_step_term_and_records(train):
    with pytest.raises(DivergenceError, match=r"step 1: answer_cross_entropy is nan in the batch of records q\d, q\d:"):
        train(nan_in_the_base)


def test_a_gradient_stops_it_before_a_weight_is_spoilt(train):
    models = []

    def spoil(model):
        nan_in_a_gradient(model)
        models.append(model)

    with pytest.raises(DivergenceError, match=r"step 1: the gradient is not finite in the batch of records q\d, q\d:"):
        train(spoil)
    assert all(parameter.isfinite().all() for parameter in models[0].parameters())


def test_a_feature_stops_it_by_record(train):
    spoilt = [*RECORDS[:3], {**RECORDS[3], "features": [1.0, float("nan"), 0.0]}]
    with pytest.raises(InputError, match="record q3: has NaN or infinity in its features"):
        train(records=spoilt)


def test_a_sound_run_ends(train):
    assert all(parameter.isfinite().all() for parameter in train().parameters())
