"""HyperLoRA in TRL's SFTTrainer: `python examples/sft_trainer.py [model]`."""

import sys

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

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

trainer = SFTTrainer(
    model=model,
    args=SFTConfig(
        "runs/sft_trainer",
        max_steps=5,
        learning_rate=8e-4,
        bf16=False,
        report_to=[],
        # The collator reads the records themselves, features among them.
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    ),
    train_dataset=Dataset.from_list(records),
    data_collator=DataCollatorForContextDistillation(tokenizer, needs_features=True),
    processing_class=tokenizer,
    peft_config=HyperLoraConfig(task_type="CAUSAL_LM", feature_dim=16, target_modules="all-linear"),
)
trainer.train()
trainer.model.save_pretrained("runs/sft_trainer/adapter")
