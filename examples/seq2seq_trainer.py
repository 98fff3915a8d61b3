"""HyperLoRA in a plain Seq2SeqTrainer, scored by generated answers: `python examples/seq2seq_trainer.py [T5]`."""

import sys

from peft import get_peft_model
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, Seq2SeqTrainer, Seq2SeqTrainingArguments

from aag_hf import HyperLoraConfig, QuestionEncoder
from aag_hf.collators import DataCollatorForContextDistillation
from aag_hf.data import load_countries
from aag_hf.evaluation import exact_match

name = sys.argv[1] if len(sys.argv) > 1 else "google-t5/t5-small"
tokenizer, model = AutoTokenizer.from_pretrained(name), AutoModelForSeq2SeqLM.from_pretrained(name)

records = load_countries()["train"][:80]
questions = [record["question"] for record in records]
encoder = QuestionEncoder.from_backbone(model, tokenizer, feature_dim=16).fit_whitening(questions)
records = [record | {"features": f} for record, f in zip(records, encoder.encode(questions).tolist())]
train, held_out = records[:64], records[64:]


def compute_metrics(prediction):
    tokens = prediction.predictions.clip(min=0)
    answers = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    hits = [exact_match(answer, record["answers"]) for answer, record in zip(answers, held_out, strict=True)]
    return {"exact_match": 100 * sum(hits) / len(hits)}


model = get_peft_model(model, HyperLoraConfig(task_type="SEQ_2_SEQ_LM", feature_dim=16, target_modules="all-linear"))
collator = DataCollatorForContextDistillation(tokenizer, is_encoder_decoder=True, needs_features=True)
arguments = Seq2SeqTrainingArguments(
    "runs/seq2seq_trainer",
    max_steps=5,
    eval_strategy="steps",
    eval_steps=5,
    predict_with_generate=True,
    generation_max_length=16,
    remove_unused_columns=False,
    report_to=[],
)
Seq2SeqTrainer(model, arguments, collator, train, held_out, compute_metrics=compute_metrics).train()
model.save_pretrained("runs/seq2seq_trainer/adapter")
