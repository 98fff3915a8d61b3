"""A run of the reader's trainer, started once for each engine; `train` alone is the run on one process.

`worker.py MODEL OUTPUT ARGUMENTS`: ARGUMENTS is JSON for ContextDistillationConfig.
"""

import copy
import functools
import json
import os
import sys
from pathlib import Path

import torch
from accelerate import DistributedType, PartialState
from peft import get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from aag_hf import HyperLoraConfig
from aag_hf.cli.boundary import end_processes
from aag_hf.cli.training import is_sharding
from aag_hf.collators import DataCollatorForContextDistillation, ReaderPrompt
from aag_hf.errors import InputError
from aag_hf.evaluation.processes import all_shares, own_share
from aag_hf.trainers import ContextDistillationConfig, ContextDistillationTrainer
from aag_hf.trainers.checkpointing import check_checkpointing

FEATURES = 6


def make_records():
    """Eight records; their questions and answers differ in length."""
    draw = torch.Generator().manual_seed(0)
    return [
        {
            "id": f"q{i}",
            "question": "why " * (1 + i % 3) + f"{i}?",
            "answers": ["so it is"[: 1 + i]],
            "compressed_context": f"{i} " * (2 + i),
            "features": torch.randn(FEATURES, generator=draw).tolist(),
        }
        for i in range(8)
    ]


def make_student(model):
    base = AutoModelForCausalLM.from_pretrained(model)
    torch.manual_seed(1)
    targets = ["q_proj", "v_proj", "down_proj"]
    config = HyperLoraConfig(
        task_type="CAUSAL_LM", r=2, feature_dim=FEATURES, hidden_dim=8, target_modules=targets, init_weights=False
    )
    return get_peft_model(base, config)


def train(model, output, **changes):
    """Train and save in `output`; returns what was logged and the sizes of the world."""
    arguments = ContextDistillationConfig(
        **{
            "output_dir": str(Path(output) / "trainer"),
            "alpha": 0.5,
            "max_steps": 3,
            "logging_steps": 1,
            "learning_rate": 1e-2,
            "report_to": [],
            "disable_tqdm": True,
            "save_strategy": "no",
            "eval_strategy": "steps",
            "eval_steps": 3,
            "dataloader_pin_memory": False,
            **changes,
        }
    )
    student = make_student(model)
    torch.manual_seed(2)
    teacher = AutoModelForCausalLM.from_pretrained(model)
    records = make_records()
    tokenizer = AutoTokenizer.from_pretrained(model)
    parts = {
        "teacher_model": teacher,
        "train_dataset": records,
        # No multiple of a batch: the last one is filled up with examples from the start.
        "eval_dataset": records[:7],
        "data_collator": DataCollatorForContextDistillation(
            tokenizer, teacher=ReaderPrompt("compressed"), needs_features=True
        ),
    }
    answered = []

    def answer_metrics(share):
        answered.extend(record["id"] for record in own_share(share, PartialState()))
        return {}

    answering = {} if is_sharding(arguments) else {"answer_metrics": answer_metrics}
    trainer = ContextDistillationTrainer(student, arguments, **answering, **parts)
    trainer.train()
    trainer.save_model(str(Path(output) / "adapter"))
    unsafe = checkpointing(arguments, True, use_reentrant=True)
    refusals = {"reentrant": refusal(check_checkpointing, student, unsafe, trainer.accelerator)}
    if not trainer.is_deepspeed_enabled:
        # DeepSpeed allows one trainer a process.
        another = functools.partial(ContextDistillationTrainer, student, **parts)
        assert refusal(another, args=unsafe) == refusals["reentrant"]
        refusals["answer_metrics"] = refusal(another, args=arguments, answer_metrics=answer_metrics)
    if trainer.is_fsdp_enabled:
        trainer.accelerator.state.fsdp_plugin.activation_checkpointing = True
        refusals["fsdp"] = refusal(another, args=checkpointing(arguments, False))
    return {
        "processes": trainer.accelerator.num_processes,
        "engine": trainer.accelerator.distributed_type.value,
        "wrapped": type(trainer.model_wrapped).__name__,
        "log": trainer.state.log_history,
        "refusals": refusals,
        "answered": all_shares(answered, PartialState()),
    }, trainer.is_world_process_zero()


def checkpointing(arguments, checkpoints, **options):
    """The same arguments with other checkpointing."""
    changed = copy.copy(arguments)
    changed.gradient_checkpointing = changed.activation_checkpointing = checkpoints
    changed.gradient_checkpointing_kwargs = options
    return changed


def refusal(refused, *arguments, **options):
    """What it says against these, or nothing."""
    try:
        refused(*arguments, **options)
    except InputError as error:
        return str(error)
    return ""


def main():
    model, output, changes = sys.argv[1:]
    torch.set_num_threads(1)
    changes = json.loads(changes)
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        # Accelerate offers FSDP on accelerators only: let it take two CPU processes for two of these.
        PartialState(cpu=True).distributed_type = DistributedType.MULTI_GPU
        changes["accelerator_config"] = {"use_configured_state": True}
    result, is_main = train(model, output, **changes)
    if is_main:
        (Path(output) / "result.json").write_text(json.dumps(result))
    end_processes()


if __name__ == "__main__":
    main()
