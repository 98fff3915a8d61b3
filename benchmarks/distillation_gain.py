"""What distillation is worth: a T5 trained with a teacher's distribution beside the answers, and without it.

Both students have t5-small's shape and random initial weights, read the question alone, and differ in the loss only.
The teacher has the same shape and reads the country's document the Fusion-in-Decoder way. The held-out loss is the
cross-entropy of answers about countries that nobody was trained on, after equal steps.

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
from aag_hf.collators import DataCollatorForContextDistillation
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


def arguments(folder: str, steps: int, seed: int, learning_rate: float, alpha: float) -> ContextDistillationConfig:
    return ContextDistillationConfig(
        folder,
        max_steps=steps,
        seed=seed,
        learning_rate=learning_rate,
        alpha=alpha,
        temperature=2.0,
        warmup_steps=0.1,
        # Gradients of a random T5's tied embeddings are thousands of times those of its other weights: clipped
        # together, the others would fall below Adam's epsilon.
        max_grad_norm=0.0,
        per_device_train_batch_size=16,
        per_device_eval_batch_size=64,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        save_strategy="no",
        logging_steps=25,
        report_to=[],
        prediction_loss_only=True,
        dataloader_pin_memory=False,
        disable_tqdm=True,
    )


def train_teacher(options: argparse.Namespace, folder: str, data: dict[str, Any], collator: Any) -> tuple[Any, float]:
    teacher = new_model(0)
    trainer = ContextDistillationTrainer(
        model=teacher,
        args=arguments(folder, options.teacher_steps, 0, 1e-3, 1.0),
        train_dataset=data["train"],
        eval_dataset=data["dev"],
        data_collator=collator(context="passages", fid=True),
    )
    trainer.train()
    return teacher, trainer.evaluate()[HELD_OUT]


def held_out_loss(options: argparse.Namespace, folder: str, data: dict[str, Any], collator: Any, seed: int) -> float:
    """Of one student; distilled if the collator has a teacher's answers."""
    distilled = collator.teacher_cache is not None
    trainer = ContextDistillationTrainer(
        model=new_model(seed),
        args=arguments(folder, options.steps, seed, 1e-3, 0.5 if distilled else 1.0),
        train_dataset=data["train"],
        eval_dataset=data["dev"],
        data_collator=collator,
    )
    trainer.train()
    return trainer.evaluate()[HELD_OUT]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--countries", type=int, default=80, help="whose questions teacher and students learn from")
    parser.add_argument("--teacher_steps", type=int, default=300)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args()
    data = {split: records for split, records in load_countries().items() if split != "test"}
    chosen = list(dict.fromkeys(record["entity"] for record in data["train"]))[: options.countries]
    data["train"] = [record for record in data["train"] if record["entity"] in chosen]
    tokenizer = make_tokenizer(data["train"])

    def collator(**reading: Any) -> DataCollatorForContextDistillation:
        return DataCollatorForContextDistillation(tokenizer, is_encoder_decoder=True, **reading)

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        teacher, loss = train_teacher(options, f"{folder}/teacher", data, collator)
        print(f"teacher, with the document: held-out loss {loss:.3f} ({time.perf_counter() - start:.0f} s)", flush=True)
        reading = collator(teacher_context="passages", teacher_fid=True)
        cache = TeacherCache.build(
            teacher,
            reading,
            data["train"] + data["dev"],
            Path(folder) / "cache",
            key={},
            top_k=64,
            temperature=2.0,
            batch_size=64,
        )
        gains = []
        for seed in range(1, options.seeds + 1):
            alone = held_out_loss(options, f"{folder}/student", data, collator(), seed)
            distilled = held_out_loss(options, f"{folder}/student", data, collator(teacher_cache=cache), seed)
            gains.append(alone - distilled)
            print(f"seed {seed}: held-out loss {alone:.3f} without, {distilled:.3f} with the teacher", flush=True)
    error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
    print(f"distillation lowers the held-out loss by {statistics.mean(gains):.3f} ± {error:.3f} ({len(gains)} seeds)")
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
