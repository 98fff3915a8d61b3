"""A distillation step with the teacher beside the student, and with its answers from the cache.

python benchmarks/distillation_step.py
"""

import tempfile
from functools import partial
from typing import Any

import models
import torch
from measure import compare
from torch import nn

from aag_hf.cli.tiny import make_tokenizer
from aag_hf.collators import DataCollatorForContextDistillation, ReaderPrompt
from aag_hf.trainers import ContextDistillationConfig, ContextDistillationTrainer, TeacherCache

BASELINE = "teacher beside the student"
ROWS = 8


def records() -> list[dict[str, Any]]:
    torch.manual_seed(0)
    return [
        {
            "id": str(i),
            "question": f"which of these is number {i}?",
            "answers": [f"number {i}"],
            "ctxs": [{"title": "", "text": " ".join(map(str, torch.randint(10, 99, (60,)).tolist()))}],
            "features": torch.randn(models.FEATURES).tolist(),
        }
        for i in range(ROWS)
    ]


def step(trainer: ContextDistillationTrainer, model: nn.Module, collator: Any, rows: list[dict[str, Any]]) -> None:
    on_device = {n: v.to(models.device()) if torch.is_tensor(v) else v for n, v in collator(rows).items()}
    trainer.compute_loss(model.train(), on_device).backward()


def main() -> None:
    base = models.base_model()
    tokenizer, rows = make_tokenizer(), records()
    student = models.with_hyperlora(base)

    def collator(**options: Any) -> DataCollatorForContextDistillation:
        return DataCollatorForContextDistillation(tokenizer, needs_features=True, **options)

    with tempfile.TemporaryDirectory() as folder:
        arguments = ContextDistillationConfig(f"{folder}/run", alpha=0.5, temperature=1.0, report_to=[])
        reading = collator(teacher=ReaderPrompt("passages"))
        cache = TeacherCache.build(base, reading, rows, f"{folder}/cache", key={}, top_k=64, temperature=1.0)
        beside = ContextDistillationTrainer(student, arguments, teacher_model=models.share_weights(base))
        alone = ContextDistillationTrainer(student, arguments)
        cases = {
            "no teacher": partial(step, alone, student, collator(), rows),
            "teacher's answers from the cache": partial(step, alone, student, collator(teacher_cache=cache), rows),
            BASELINE: partial(step, beside, student, reading, rows),
        }
        compare("distillation step", cases, BASELINE, setting=f"{ROWS} questions, a passage of about 180 tokens each")


if __name__ == "__main__":
    main()
