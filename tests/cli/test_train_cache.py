"""``aag train --teacher_cache_dir``: the teacher runs for the first student only."""

import functools
import json

import pytest
from transformers import LlamaForCausalLM

from aag_hf.awakening import AwakeningConfig
from aag_hf.cli.train import TrainOptions, train
from aag_hf.data import write_records
from aag_hf.errors import InputError
from aag_hf.trainers import ContextDistillationConfig


@pytest.fixture
def files(tmp_path):
    """Training and development records by the option that names them."""
    records = [
        {"id": f"q{i}", "question": f"who is {i}?", "answers": [f"it is {i}"], "compressed_context": f"{i} " * i}
        for i in range(1, 7)
    ]
    write_records(records[:4], tmp_path / "train.jsonl")
    write_records(records[4:], tmp_path / "dev.jsonl")
    return {"train_file": str(tmp_path / "train.jsonl"), "dev_file": str(tmp_path / "dev.jsonl")}


@pytest.fixture
def run(files, tmp_path, tiny_llama_dir):
    def run(name, **options):
        directory = tmp_path / name
        arguments = ContextDistillationConfig(
            str(directory), max_steps=2, use_cpu=True, save_strategy="no", report_to=[], disable_tqdm=True
        )
        train(TrainOptions(model_name_or_path=tiny_llama_dir, r=2, method="lora", **files, **options), arguments)
        return AwakeningConfig.from_pretrained(directory).training_figures

    return run


@pytest.fixture
def teacher(run, tmp_path):
    run("teacher", context="compressed")
    return str(tmp_path / "teacher")


def test_students_train_alike_with_the_teacher_and_with_what_it_left(run, teacher, tmp_path, monkeypatch):
    looped = run("looped", teacher=teacher)
    batches, forward = [], LlamaForCausalLM.forward

    @functools.wraps(forward)
    def counted(*args, **kwargs):
        batches.append(1)
        return forward(*args, **kwargs)

    monkeypatch.setattr(LlamaForCausalLM, "forward", counted)
    cache = {"teacher_cache_dir": str(tmp_path / "cache"), "teacher_top_k": None}
    first = run("first", teacher=teacher, **cache)
    with_teacher = len(batches)
    second = run("second", teacher=teacher, **cache)
    assert len(batches) - with_teacher < with_teacher
    for name in ("train_loss", "eval_loss", "eval_distillation_kl"):
        assert first[name] == pytest.approx(looped[name], abs=1e-5)
        assert second[name] == first[name]
    key = json.loads((tmp_path / "cache" / "key.json").read_text())
    assert key["teacher"] == teacher and key["top_k"] is None and key["teacher_context"] == "compressed"


def test_the_default_keeps_few_logits_of_train_and_dev_records(run, teacher, tmp_path):
    figures = run("student", teacher=teacher, teacher_cache_dir=str(tmp_path / "cache"))
    assert json.loads((tmp_path / "cache" / "key.json").read_text())["top_k"] == 64
    assert figures["eval_distillation_kl"] > 0
    with pytest.raises(InputError, match="top_k was 64, is 8"):
        run("other", teacher=teacher, teacher_cache_dir=str(tmp_path / "cache"), teacher_top_k=8)


@pytest.mark.parametrize("top_k", [0, -1])
def test_keeping_no_logits_is_refused(top_k):
    with pytest.raises(InputError, match=f"teacher_top_k must be positive, or null for all logits, got {top_k}"):
        TrainOptions(teacher_top_k=top_k)
