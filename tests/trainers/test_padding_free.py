"""Rows laid one after another into one give the steps and the evaluation that padded rows give."""

import pytest
import torch
from datasets import Dataset
from peft import get_peft_model
from transformers import (
    AutoModelForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from aag_hf import HyperLoraConfig
from aag_hf.collators import DataCollatorForContextDistillation, ReaderPrompt
from aag_hf.errors import InputError
from aag_hf.trainers import ContextDistillationConfig, ContextDistillationTrainer, TeacherCache
from aag_hf.trainers.answer_logits import answer_logits
from aag_hf.trainers.batch_rows import first_rows

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.fixture
def collator_of(tiny_tokenizer):
    def collator_of(padding_free, **options):
        return DataCollatorForContextDistillation(
            tiny_tokenizer, needs_features=True, padding_free=padding_free, **options
        )

    return collator_of


@pytest.fixture
def reader(tiny_llama_dir):
    def reader(attention="sdpa", seed=1, **options):
        base = AutoModelForCausalLM.from_pretrained(tiny_llama_dir, attn_implementation=attention)
        return adapted(base, seed, **options)

    return reader


def sharp(model):
    """With weights that are large enough for its input to matter."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return model


def adapted(base, seed=1, **options):
    torch.manual_seed(seed)
    config = HyperLoraConfig(
        feature_dim=6, hidden_dim=8, r=2, target_modules="all-linear", init_weights=False, **options
    )
    return get_peft_model(sharp(base), config).double()


def answers_and_gradients(model, batch):
    logits, labels = answer_logits(model, batch)
    weights = torch.linspace(0.5, 1.5, logits.numel(), dtype=logits.dtype).reshape(logits.shape)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad((weights * logits.log_softmax(-1)).sum(), list(trained.values()))
    return logits, labels, dict(zip(trained, gradients))


def check_equal(model, records, collator_of):
    padded, padded_labels, wanted = answers_and_gradients(model, collator_of(False)(records))
    packed, labels, got = answers_and_gradients(model, collator_of(True)(records))
    assert torch.equal(labels, padded_labels)
    for name, left, right in [("logits", packed, padded), *((name, got[name], wanted[name]) for name in got)]:
        tolerance = {"rtol": 1e-3, "atol": 3e-5 * right.abs().max().item()} if packed.dtype == torch.float32 else {}
        torch.testing.assert_close(left, right, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("options", [{}, {"static": True}], ids=["plain", "static"])
def test_answers_and_gradients_are_those_of_padded_rows(reader, records, collator_of, attention, options):
    # Eager attention takes its softmax in single precision, where float64's mask of padding is infinite.
    model = reader(attention, **options).to(torch.float32 if attention == "eager" else torch.float64)
    check_equal(model, records, collator_of)


def test_one_record_alone(reader, records, collator_of):
    check_equal(reader(static=True), records[:1], collator_of)


@pytest.mark.parametrize(
    "make",
    [
        lambda size: Qwen2ForCausalLM(Qwen2Config(vocab_size=size, num_key_value_heads=2, **SMALL)),
        lambda size: GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=size, **SMALL)),
    ],
    ids=["qwen2", "gpt-neox"],
)
def test_other_architectures(records, collator_of, tiny_tokenizer, make):
    torch.manual_seed(0)
    check_equal(adapted(make(len(tiny_tokenizer))), records, collator_of)


def test_no_row_reads_another(reader, records, collator_of):
    model = reader()
    changed = [{**records[0], "question": "what else?"}, *records[1:]]
    first = len(collator_of(True)(records[:1])["labels"][collator_of(True)(records[:1])["labels"] >= 0])
    before, after = (answer_logits(model, collator_of(True)(rows))[0] for rows in (records, changed))
    assert not torch.allclose(before[:first], after[:first])
    torch.testing.assert_close(after[first:], before[first:])


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("cached", [False, True])
def test_a_trainer_takes_the_same_steps(
    reader, tiny_llama_dir, records, collator_of, options, tmp_path, checkpointing, cached
):
    teacher = AutoModelForCausalLM.from_pretrained(tiny_llama_dir).double()
    figures = []
    for padding_free in (False, True):
        collator = collator_of(padding_free, teacher=ReaderPrompt("compressed"))
        if cached:
            key = {"key": {}, "top_k": None, "temperature": 1.0}
            collator.teacher_cache = TeacherCache.build(teacher, collator, records, tmp_path / str(padding_free), **key)
        model = reader()
        trainer = ContextDistillationTrainer(
            model,
            ContextDistillationConfig(**{**options, "max_steps": 3, "gradient_checkpointing": checkpointing}),
            teacher_model=None if cached else teacher,
            train_dataset=records,
            eval_dataset=records,
            data_collator=collator,
        )
        trainer.train()
        figures.append(
            [trainer.evaluate()["eval_loss"], *(e["loss"] for e in trainer.state.log_history if "loss" in e)]
        )
    assert figures[1] == pytest.approx(figures[0], rel=1e-6)
    assert len(set(figures[0])) == 4


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("padding_free", [False, True])
def test_a_stream_gives_the_steps_of_its_records_in_order(
    reader, tiny_llama_dir, records, collator_of, options, tmp_path, padding_free, cached
):
    collator = collator_of(padding_free, teacher=ReaderPrompt("compressed"))
    if cached:
        teacher = AutoModelForCausalLM.from_pretrained(tiny_llama_dir).double()
        key = {"key": {}, "top_k": None, "temperature": 1.0}
        collator.teacher_cache = TeacherCache.build(teacher, collator, records, tmp_path / "cache", **key)
    rows = Dataset.from_list(records)
    losses = []
    for data in (rows, rows.to_iterable_dataset()):
        arguments = {**options, "max_steps": 3, "train_sampling_strategy": "sequential"}
        trainer = ContextDistillationTrainer(
            reader(), ContextDistillationConfig(**arguments), train_dataset=data, data_collator=collator
        )
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert len(losses[0]) == 3 and losses[1] == losses[0]


@pytest.mark.parametrize("rows", [1, 3])
def test_thefirst_rows_of_a_batch(records, collator_of, rows):
    collator = collator_of(True)
    first, alone = first_rows(collator(records), rows), collator(records[:rows])
    for name in ("input_ids", "labels", "position_ids", "cu_seq_lens_q", "cu_seq_lens_k", "features"):
        assert torch.equal(first[name], alone[name])


@pytest.mark.parametrize(
    "make",
    [
        lambda size: OPTForCausalLM(
            OPTConfig(
                vocab_size=size,
                hidden_size=32,
                ffn_dim=48,
                num_hidden_layers=2,
                num_attention_heads=4,
                word_embed_proj_dim=32,
            )
        ),
        lambda size: MambaForCausalLM(MambaConfig(vocab_size=size, hidden_size=32, num_hidden_layers=2)),
    ],
    ids=["its attention does not look", "recurrent"],
)
@pytest.mark.parametrize("run", ["train", "evaluate"])
def test_a_model_that_does_not_keep_rows_apart_is_refused(records, tiny_tokenizer, options, make, run):
    trainer = ContextDistillationTrainer(
        sharp(make(len(tiny_tokenizer))),
        ContextDistillationConfig(**options),
        train_dataset=records,
        eval_dataset=records,
        data_collator=DataCollatorForContextDistillation(tiny_tokenizer, padding_free=True),
    )
    with pytest.raises(InputError, match="lets a packed row read the rows before it"):
        getattr(trainer, run)()


def test_what_cannot_be_packed_is_refused(reader, records, collator_of, tiny_tokenizer, options):
    with pytest.raises(InputError, match="padding_free is for causal models"):
        DataCollatorForContextDistillation(tiny_tokenizer, is_encoder_decoder=True, padding_free=True)
    with pytest.raises(InputError, match="dispatch_batches cuts a batch"):
        ContextDistillationTrainer(
            reader(),
            ContextDistillationConfig(**{**options, "accelerator_config": {"dispatch_batches": True}}),
            train_dataset=records,
            data_collator=collator_of(True),
        )
    with pytest.raises(InputError, match="alignment compares row by row"):
        ContextDistillationTrainer(
            reader(),
            ContextDistillationConfig(**{**options, "hidden_weight": 1.0}),
            teacher_model=reader(seed=7),
            data_collator=collator_of(True, teacher=ReaderPrompt("compressed")),
        )
    batch = collator_of(True)(records)
    with pytest.raises(ValueError, match="features has 2 rows, the input has 6"):
        answer_logits(reader(), {**batch, "features": batch["features"][:2]})
