"""Alignment from a teacher cache: the states that were kept give what the teacher in the loop gives."""

import copy

import pytest
import torch
from peft import get_peft_model
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM

from aag_hf import HyperLoraConfig
from aag_hf.collators import DataCollatorForContextDistillation, ReaderPrompt
from aag_hf.errors import InputError
from aag_hf.trainers import ContextDistillationConfig, ContextDistillationTrainer, TeacherCache

TERMS = ["hidden_alignment", "attention_alignment"]
WEIGHTS = {"hidden_weight": 0.5, "attention_weight": 2.0, "alpha": 0.25}


@pytest.fixture(params=["fid", "llama"])
def setting(request, load_fid, tiny_tokenizer):
    """Student, teacher and collator in single precision, a Fusion-in-Decoder pair or a causal one."""
    if request.param == "fid":
        readers = {"student": ReaderPrompt("passages", 2, fid=True), "teacher": ReaderPrompt("passages", 3, fid=True)}
        reading = {"question_mask": True, **readers}
        models = load_fid("hyperlora", init_weights=False), load_fid(seed=2)
    else:
        reading = {"teacher": ReaderPrompt("compressed")}
        models = causal_pair(request)
    collator = DataCollatorForContextDistillation(
        tiny_tokenizer, is_encoder_decoder=request.param == "fid", needs_features=True, **reading
    )
    return (*(model.float().eval() for model in models), collator)


def causal_pair(request):
    directory = request.getfixturevalue("tiny_llama_dir")
    torch.manual_seed(3)
    models = [AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager") for _ in range(2)]
    with torch.no_grad():
        for parameter in models[1].parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    config = HyperLoraConfig(
        task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"], r=2, feature_dim=6, init_weights=False
    )
    return get_peft_model(models[0], config), models[1]


@pytest.fixture
def build(setting, passage_records, tmp_path):
    def build(records=passage_records, **changes):
        _, teacher, collator = setting
        options = {"key": {}, "top_k": None, "temperature": 3.0, "aligned": TERMS, "batch_size": 3, **changes}
        return TeacherCache.build(teacher, collator, records, tmp_path / "cache", **options)

    return build


@pytest.fixture
def trainer_of(setting, passage_records, options):
    def trainer_of(cache=None, **changes):
        student, teacher, collator = setting
        collator = copy.copy(collator)
        collator.teacher_cache = cache
        return ContextDistillationTrainer(
            student,
            ContextDistillationConfig(**{**options, **WEIGHTS, **changes}),
            teacher_model=None if cache else teacher,
            train_dataset=passage_records,
            data_collator=collator,
        )

    return trainer_of


def loss_and_gradients(trainer, records):
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(records))
    terms = trainer.compute_terms(trainer.model, trainer.data_collator(records)).values
    return terms, torch.autograd.grad(loss, trained)


@pytest.mark.parametrize("layers", ["all", "select"])
@pytest.mark.parametrize("weights", [{}, {"hidden_weight": 0.0}, {"attention_weight": 0.0}, {"alpha": 1.0}])
def test_terms_and_gradients_from_the_cache_equal_those_with_the_teacher(
    build, trainer_of, passage_records, layers, weights
):
    """In batches of other records than the cache was built in."""
    cached, looped = trainer_of(build(layers=layers), layers=layers, **weights), trainer_of(layers=layers, **weights)
    for rows in (passage_records, [passage_records[i] for i in (3, 1)], passage_records[2:3]):
        (ours, our_gradients), (theirs, their_gradients) = (loss_and_gradients(t, rows) for t in (cached, looped))
        assert ours.keys() == theirs.keys()
        for name in theirs:
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-7, msg=name)
        for a, b in zip(our_gradients, their_gradients):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_run_from_the_cache_reads_no_teacher(setting, build, trainer_of, passage_records):
    cache, seen = build(), []
    setting[1].register_forward_pre_hook(lambda *_: seen.append(1))
    assert build().key == cache.key
    trainer = trainer_of(cache)
    trainer.train()
    metrics = trainer.evaluate(passage_records)
    assert not seen and trainer.state.log_history[0]["attention_alignment"] > 0
    assert metrics["eval_hidden_alignment"] > 0


def test_a_stopped_build_goes_on_and_keeps_all_states(setting, build, passage_records, tmp_path):
    records = [{**record, "id": f"{record['id']}-{i}"} for record in passage_records for i in range(5)]
    seen = []

    def stop(*_):
        seen.append(1)
        if len(seen) == 19:
            raise KeyboardInterrupt

    handle = setting[1].register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        build(records, batch_size=1)
    rest = build(records, batch_size=1).collate(records)
    handle.remove()
    # The first file was whole when the build stopped; the other four records were computed again.
    assert len(seen) == 19 + 4
    (tmp_path / "cache").rename(tmp_path / "stopped")
    whole = build(records, batch_size=1).collate(records)
    assert all(torch.equal(torch.as_tensor(rest[n]), torch.as_tensor(whole[n])) for n in whole if n != "teacher_layers")


def test_workers_of_a_data_loader_read_the_same_batches(build, trainer_of, passage_records):
    collator = trainer_of(build()).data_collator
    (batch,) = DataLoader(passage_records, batch_size=4, collate_fn=collator, num_workers=1)
    expected = collator(passage_records)
    assert batch.keys() == expected.keys() and any("hidden_alignment" in name for name in batch)
    assert all(torch.equal(batch[n], v) for n, v in expected.items() if isinstance(v, torch.Tensor))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"aligned": []}, r"layers was 'all', is None; states was \['answer"),
        ({"layers": "select"}, "layers was 'all', is 'select'"),
    ],
)
def test_a_cache_of_other_states_is_refused_and_the_difference_named(build, changes, message):
    build()
    with pytest.raises(InputError, match=message):
        build(**changes)


@pytest.mark.parametrize(
    ("built", "run", "message"),
    [
        ({"aligned": []}, {}, "the teacher cache holds none for hidden_alignment: build another cache with aligned"),
        ({"aligned": TERMS[:1]}, {}, "the teacher cache holds none for attention_alignment"),
        ({}, {"layers": "select"}, "layers 'select', of which the teacher cache holds those of layers 'all'"),
        ({}, {"alignment": "position"}, "'position' reads every token of the teacher's, which a cache does not keep"),
    ],
)
def test_states_that_the_cache_lacks_are_refused(build, trainer_of, built, run, message):
    with pytest.raises(InputError, match=message):
        trainer_of(build(**built), **run).train()


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_attention_that_forms_no_probabilities_is_refused(setting, build, trainer_of, role):
    student, teacher, _ = setting
    cache = build() if role == "student" else None
    {"student": student, "teacher": teacher}[role].set_attn_implementation("sdpa")
    with pytest.raises(InputError, match=f"the {role}'s 'sdpa' attention never forms"):
        build() if cache is None else trainer_of(cache)
