"""Training on what is not in memory: a mapped file and a stream, continued where it stopped."""

import pytest
import torch
from torch.utils.data import DataLoader

from aag_hf.collators import DataCollatorForContextDistillation, DataCollatorForContextGeneration
from aag_hf.data import mapped, open_records, write_records
from aag_hf.data.streams import RecordStream
from aag_hf.trainers import (
    ContextDistillationConfig,
    ContextDistillationTrainer,
    ContextGeneratorConfig,
    ContextGeneratorTrainer,
)

TRAINERS = {
    "generator": (ContextGeneratorTrainer, ContextGeneratorConfig, DataCollatorForContextGeneration),
    "reader": (ContextDistillationTrainer, ContextDistillationConfig, DataCollatorForContextDistillation),
}


@pytest.fixture(params=["mapped", "stream"])
def train_dataset(request, records, tmp_path, monkeypatch):
    """The six records in a file; four steps of two are more than one epoch."""
    monkeypatch.setattr(mapped, "IN_MEMORY", 0)
    monkeypatch.setattr(mapped, "HF_HOME", str(tmp_path / "home"))
    write_records(records, tmp_path / "train.jsonl")
    return (open_records if request.param == "mapped" else RecordStream)(tmp_path / "train.jsonl")


@pytest.fixture
def trainer_of(load, kind, tiny_tokenizer, options):
    def trainer_of(name, train_dataset, seed=1, **changes):
        trainer, config, collator = TRAINERS[name]
        return trainer(
            load("lora", seed=seed),
            config(**{**options, "max_steps": 4, **changes}),
            train_dataset=train_dataset,
            data_collator=collator(tiny_tokenizer, kind.is_encoder_decoder),
        )

    return trainer_of


@pytest.mark.parametrize("kind", ["llama"], indirect=True)
@pytest.mark.parametrize("name", TRAINERS)
def test_a_resumed_run_reads_on_where_it_stopped(trainer_of, train_dataset, options, name):
    unbroken = trainer_of(name, train_dataset, save_strategy="steps", save_steps=1)
    unbroken.train()
    for step in (2, 3):
        resumed = trainer_of(name, train_dataset, seed=5)
        resumed.train(resume_from_checkpoint=f"{options['output_dir']}/checkpoint-{step}")
        for (key, ours), theirs in zip(resumed.model.named_parameters(), unbroken.model.parameters(), strict=True):
            assert torch.equal(ours, theirs), key


@pytest.mark.parametrize("kind", ["llama"], indirect=True)
def test_a_list_and_its_map_train_alike(trainer_of, records, tmp_path, monkeypatch):
    monkeypatch.setattr(mapped, "IN_MEMORY", 0)
    monkeypatch.setattr(mapped, "HF_HOME", str(tmp_path / "home"))
    write_records(records, tmp_path / "train.jsonl")
    losses = []
    for dataset in (records, open_records(tmp_path / "train.jsonl")):
        trainer = trainer_of("reader", dataset)
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_divide_a_stream_among_them(records, tmp_path, workers):
    write_records(records, tmp_path / "train.jsonl")
    loader = DataLoader(RecordStream(tmp_path / "train.jsonl"), batch_size=None, num_workers=workers)
    assert sorted(record["id"] for record in loader) == [record["id"] for record in records]
