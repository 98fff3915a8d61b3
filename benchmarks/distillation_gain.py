"""What distillation is worth: a T5 trained with a teacher's distribution beside the answers, and without it.

Both students have t5-small's shape and random initial weights, read the question alone, and differ in the loss only.
The teacher has the same shape and reads the country's document the Fusion-in-Decoder way; how long it is trained is
chosen on development countries. The held-out loss is the cross-entropy of answers about other countries that nobody was
trained on, after equal steps.

python benchmarks/distillation_gain.py
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, T5Config, set_seed

from aag_hf import FiDT5ForConditionalGeneration
from aag_hf.collators import DataCollatorForContextDistillation, ReaderPrompt
from aag_hf.data import load_countries
from aag_hf.trainers import ContextDistillationConfig, ContextDistillationTrainer, TeacherCache

SHAPE = {"vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8}
HELD_OUT = "eval_answer_cross_entropy"


def make_tokenizer(records: list[dict[str, Any]]) -> PreTrainedTokenizerFast:
    """A small byte-level BPE of the training text: a model from scratch sees each token often enough to learn it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    text = [part for r in records for part in (r["question"], *r["answers"], *(c["text"] for c in r["ctxs"]))]
    tokenizer.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=2000, special_tokens=special, initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")


def new_model(seed: int) -> FiDT5ForConditionalGeneration:
    set_seed(seed)
    return FiDT5ForConditionalGeneration(T5Config(**SHAPE, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1))


def arguments(folder: str, steps: int, seed: int, **others: Any) -> ContextDistillationConfig:
    return ContextDistillationConfig(
        folder,
        max_steps=steps,
        seed=seed,
        learning_rate=1e-3,
        temperature=2.0,
        warmup_steps=0.1,
        # Gradients of a random T5's tied embeddings are thousands of times those of its other weights: clipped
        # together, the others would fall below Adam's epsilon.
        max_grad_norm=0.0,
        per_device_train_batch_size=16,
        per_device_eval_batch_size=64,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=20,
        report_to=[],
        prediction_loss_only=True,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        **{"save_strategy": "no", **others},
    )


def trained_teacher(steps: int, folder: str, data: dict[str, Any], collator: Any) -> FiDT5ForConditionalGeneration:
    """The best on the development questions of what training passes through."""
    often = {"eval_strategy": "steps", "eval_steps": 20, "save_strategy": "steps", "save_steps": 20}
    best = {"load_best_model_at_end": True, "metric_for_best_model": HELD_OUT, "greater_is_better": False}
    trainer = ContextDistillationTrainer(
        model=new_model(0),
        args=arguments(folder, steps, 0, alpha=1.0, save_total_limit=1, save_only_model=True, **often, **best),
        train_dataset=data["train"],
        eval_dataset=data["dev"],
        data_collator=collator,
    )
    trainer.train()
    print(
        f"teacher: development loss {trainer.state.best_metric:.3f} at step {trainer.state.best_global_step}",
        flush=True,
    )
    return trainer.model


def held_out_loss(steps: int, folder: str, data: dict[str, Any], collator: Any, seed: int) -> float:
    """Of one student; distilled if the collator has a teacher's answers."""
    distilled = collator.teacher_cache is not None
    trainer = ContextDistillationTrainer(
        model=new_model(seed),
        args=arguments(folder, steps, seed, alpha=0.5 if distilled else 1.0),
        train_dataset=data["train"],
        eval_dataset=data["test"],
        data_collator=collator,
    )
    trainer.train()
    return trainer.evaluate()[HELD_OUT]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--countries", type=int, default=80, help="whose questions teacher and students learn from")
    parser.add_argument("--teacher_steps", type=int, default=100)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args()
    data = load_countries()
    chosen = list(dict.fromkeys(record["entity"] for record in data["train"]))[: options.countries]
    data["train"] = [record for record in data["train"] if record["entity"] in chosen]
    tokenizer = make_tokenizer(data["train"])

    def collator(**reading: Any) -> DataCollatorForContextDistillation:
        return DataCollatorForContextDistillation(tokenizer, is_encoder_decoder=True, **reading)

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        reader = collator(student=ReaderPrompt("passages", fid=True))
        teacher = trained_teacher(options.teacher_steps, f"{folder}/teacher", data, reader)
        reading = collator(teacher=ReaderPrompt("passages", fid=True))
        cache = TeacherCache.build(
            teacher,
            reading,
            data["train"] + data["test"],
            Path(folder) / "cache",
            key={},
            top_k=64,
            temperature=2.0,
            batch_size=64,
        )
        gains = []
        for seed in range(1, options.seeds + 1):
            alone = held_out_loss(options.steps, f"{folder}/student", data, collator(), seed)
            distilled = held_out_loss(options.steps, f"{folder}/student", data, collator(teacher_cache=cache), seed)
            gains.append(alone - distilled)
            print(f"seed {seed}: held-out loss {alone:.3f} without, {distilled:.3f} with the teacher", flush=True)
    error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
    print(f"distillation lowers the held-out loss by {statistics.mean(gains):.3f} ± {error:.3f} ({len(gains)} seeds)")
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
