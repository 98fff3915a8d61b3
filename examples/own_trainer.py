"""HyperLoRA in a plain transformers Trainer: `python examples/own_trainer.py [model]`."""

import sys

from peft import get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

from aag_hf import HyperLoraConfig, QuestionEncoder
from aag_hf.collators import DataCollatorForContextDistillation
from aag_hf.data import load_countries
from aag_hf.data.embedded import resolve_model

name = resolve_model(sys.argv[1] if len(sys.argv) > 1 else "embedded")
tokenizer, model = AutoTokenizer.from_pretrained(name), AutoModelForCausalLM.from_pretrained(name)

records = load_countries()["train"][:64]
questions = [record["question"] for record in records]
encoder = QuestionEncoder.from_backbone(model, tokenizer, feature_dim=16).fit_whitening(questions)
records = [record | {"features": f} for record, f in zip(records, encoder.encode(questions).tolist())]

model = get_peft_model(model, HyperLoraConfig(task_type="CAUSAL_LM", feature_dim=16, target_modules="all-linear"))
collator = DataCollatorForContextDistillation(tokenizer, needs_features=True)
arguments = TrainingArguments("runs/own_trainer", max_steps=5, remove_unused_columns=False, report_to=[])
Trainer(model=model, args=arguments, train_dataset=records, data_collator=collator).train()
model.save_pretrained("runs/own_trainer/adapter")
