"""The teacher cache: what training reads from disk is what the teacher would have said."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.utils.data import DataLoader

from aag_hf.collators import DataCollatorForContextDistillation, ReaderPrompt
from aag_hf.errors import InputError
from aag_hf.trainers import ContextDistillationConfig, ContextDistillationTrainer, TeacherCache
from aag_hf.trainers.answer_logits import answer_logits
from aag_hf.trainers.context_distillation import teacher_cache

TEMPERATURE = 3.0
VOCABULARY = 259


@pytest.fixture
def collator(kind, tiny_tokenizer):
    return DataCollatorForContextDistillation(
        tiny_tokenizer, kind.is_encoder_decoder, teacher=ReaderPrompt("compressed")
    )


@pytest.fixture
def teacher(load):
    """Apart from the student's weights."""
    torch.manual_seed(11)
    model = load()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture
def build(teacher, collator, records, tmp_path):
    def build(records=records, teacher=teacher, collator=collator, **changes):
        arguments = {"key": {"teacher": "ours"}, "top_k": 8, "temperature": TEMPERATURE, "batch_size": 2, **changes}
        return TeacherCache.build(teacher, collator, records, tmp_path / "cache", **arguments)

    return build


@pytest.fixture
def trainer_of(records, options, collator):
    def trainer_of(model, teacher=None, cache=None, **changes):
        changes = {"alpha": 0.25, "temperature": TEMPERATURE, **changes}
        return ContextDistillationTrainer(
            model,
            ContextDistillationConfig(**{**options, **changes}),
            teacher_model=teacher,
            train_dataset=records,
            eval_dataset=records,
            data_collator=with_cache(collator, cache),
        )

    return trainer_of


def with_cache(collator, cache):
    collator = copy.copy(collator)
    collator.teacher_cache = cache
    return collator


def count_batches(model):
    """A list that grows with every batch the model reads."""
    seen = []
    model.register_forward_pre_hook(lambda *_: seen.append(1))
    return seen


def loss_of(trainer, records):
    return trainer.compute_loss(trainer.model, trainer.data_collator(records))


def partition_kl(student, teacher, k, temperature):
    """T² · KL over the teacher's k likeliest tokens and all others as one, token by token."""
    divergences = []
    for ours, theirs in zip(student, teacher, strict=True):
        p, q = (theirs / temperature).softmax(-1), (ours / temperature).softmax(-1)
        top = theirs.argsort(descending=True)[:k]
        p, q = (torch.cat([x[top], 1 - x[top].sum(0, keepdim=True)]) for x in (p, q))
        divergences.append(temperature**2 * (p * (p / q).log()).sum())
    return torch.stack(divergences).mean()


@pytest.mark.parametrize("top_k", [None, VOCABULARY])
def test_the_cached_loss_equals_the_loss_in_the_loop(load, teacher, records, build, trainer_of, top_k):
    cached, looped = trainer_of(load(), cache=build(top_k=top_k)), trainer_of(load(), teacher)
    for rows in (records, [records[i] for i in (4, 0, 3)], records[5:]):
        ours, theirs = loss_of(cached, rows), loss_of(looped, rows)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    for name, parameter in looped.model.named_parameters():
        theirs = torch.autograd.grad(loss_of(looped, records), parameter)[0]
        ours = torch.autograd.grad(loss_of(cached, records), dict(cached.model.named_parameters())[name])[0]
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6, msg=name)


class OneOfTwo:
    """A process of two, which meet nowhere: each call is made after the other has ended."""

    num_processes = 2

    def __init__(self, process_index):
        self.process_index = process_index

    def wait_for_everyone(self):
        """Nothing to wait for."""


def test_processes_share_the_files_and_another_number_of_them_continues_to_the_same(
    build, teacher, tmp_path, monkeypatch
):
    monkeypatch.setattr(teacher_cache, "BATCHES_PER_FILE", 1)
    batches = count_batches(teacher)
    build(processes=OneOfTwo(1))
    half = len(batches)
    build(processes=OneOfTwo(0))
    shared = {path.name: path.read_bytes() for path in (tmp_path / "cache").iterdir()}
    assert len(batches) == len(shared) - 1 and half == len(batches) // 2
    (tmp_path / "cache").rename(tmp_path / "shared")
    build(processes=OneOfTwo(1))
    build()
    assert {path.name: path.read_bytes() for path in (tmp_path / "cache").iterdir()} == shared


@torch.no_grad()
@pytest.mark.parametrize("top_k", [1, 5])
def test_a_few_logits_give_the_divergence_over_them_and_the_rest(
    load, teacher, records, collator, build, trainer_of, top_k
):
    trainer = trainer_of(load().eval(), cache=build(top_k=top_k), alpha=0.0)
    bare = DataCollatorForContextDistillation(collator.tokenizer, collator.is_encoder_decoder)
    student = answer_logits(trainer.model, bare(records))[0]
    expected = partition_kl(student, answer_logits(teacher, collator.teacher_inputs(records))[0], top_k, TEMPERATURE)
    torch.testing.assert_close(loss_of(trainer, records), expected, rtol=0, atol=1e-9)
    assert (trainer.data_collator(records)["teacher_top_values"]).shape == (len(student), top_k)


def test_a_run_from_the_cache_ends_where_a_run_with_the_teacher_ends(load, teacher, build, trainer_of):
    """Training, its log and evaluation, whose last batch is smaller."""
    cached, looped = trainer_of(load(), cache=build(top_k=None), max_steps=3), trainer_of(load(), teacher, max_steps=3)
    for trainer in (cached, looped):
        trainer.train()
    for name, value in looped.model.named_parameters():
        torch.testing.assert_close(dict(cached.model.named_parameters())[name], value, rtol=0, atol=1e-6, msg=name)
    ours, theirs = (
        {n: v for n, v in {**t.state.log_history[0], **t.evaluate()}.items() if "loss" in n or "_kl" in n}
        for t in (cached, looped)
    )
    assert set(ours) >= {"loss", "distillation_kl", "eval_loss", "eval_distillation_kl"}
    assert ours == pytest.approx(theirs, abs=1e-5)


def test_a_second_student_reads_the_cache_and_never_runs_the_teacher(teacher, records, build):
    seen = count_batches(teacher)
    first = build().collate(records)
    assert len(seen) == 3
    again = build().collate(records)
    assert len(seen) == 3
    assert all(torch.equal(torch.as_tensor(again[name]), torch.as_tensor(first[name])) for name in first)


def test_only_records_that_are_new_are_computed(teacher, records, build):
    whole = build(records[:4])
    seen = count_batches(teacher)
    both = build(records)
    assert len(seen) == 1
    assert torch.equal(both.collate(records[:4])["teacher_labels"], whole.collate(records[:4])["teacher_labels"])
    assert len(both.collate(records[4:])["teacher_labels"]) > 0


def test_the_teacher_runs_without_dropout(load, records, collator, build):
    teacher = load("lora", dropout=0.5, init_lora_weights=False).train()
    cached = build(teacher=teacher, top_k=None).collate(records)["teacher_logits"]
    expected, _ = answer_logits(teacher.eval(), collator.teacher_inputs(records))
    torch.testing.assert_close(cached, expected, rtol=0, atol=1e-9)


def test_exact_logits_keep_the_type_of_the_teacher(teacher, records, build):
    logits = build(teacher=copy.deepcopy(teacher).bfloat16(), top_k=None).collate(records)["teacher_logits"]
    assert logits.dtype == torch.bfloat16 and logits.shape[1] == VOCABULARY


@pytest.mark.parametrize("top_k", [None, 3])
def test_workers_of_a_data_loader_read_the_same_batches(records, collator, build, top_k):
    collator = with_cache(collator, build(top_k=top_k))
    (batch,) = DataLoader(records, batch_size=6, collate_fn=collator, num_workers=1)
    for name, value in collator(records).items():
        assert torch.equal(torch.as_tensor(batch[name]), torch.as_tensor(value)), name


def louder(model):
    model = copy.deepcopy(model)
    next(model.parameters()).data[-1] += 1
    return model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top_k": 4}, r"\(top_k was 8, is 4\)"),
        ({"top_k": None}, r"\(temperatures was \[3.0\], is None; top_k was 8, is None\)"),
        ({"temperature": 2.0}, r"\(temperatures was \[3.0\], is \[2.0\]\)"),
        ({"key": {"teacher": "theirs"}}, r"\(teacher was 'ours', is 'theirs'\)"),
        ({"key": {}}, r"\(teacher was 'ours', is None\)"),
        ({"teacher": louder}, r"\(weights was '\w+', is '\w+'\)"),
    ],
)
def test_a_cache_of_another_key_is_refused_and_the_difference_named(teacher, build, changes, message):
    build()
    if "teacher" in changes:
        changes = {"teacher": changes["teacher"](teacher)}
    with pytest.raises(InputError, match=message):
        build(**changes)
    build()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("context_prompt", "{question} {context}"),
        ("context", "none"),
        ("prompt_max_length", 99),
        ("answer_max_length", 3),
        ("tokenizer", None),
    ],
)
def test_a_cache_of_another_prompt_is_refused_and_the_difference_named(collator, build, name, value):
    build()
    changed = copy.deepcopy(collator)
    if name == "tokenizer":
        changed.tokenizer.add_tokens(["why"])
    elif name == "answer_max_length":
        changed.answer_max_length = value
    else:
        changed.teacher = replace(collator.teacher, **{name: value})
    with pytest.raises(InputError, match=name.replace("context_prompt", "teacher_prompt") + " was "):
        build(collator=changed)


def test_what_the_student_reads_and_how_the_tokenizer_was_called_do_not_matter(teacher, collator, build):
    build()
    seen = count_batches(teacher)
    other = copy.deepcopy(collator)
    other.student = ReaderPrompt("generated", 5, prompt="{question}")
    other.needs_features, other.pad_to_multiple_of = True, 8
    other.tokenizer(["a", "bc"], padding=True, truncation=True, max_length=4)
    build(collator=other)
    assert not seen


@pytest.mark.parametrize("change", [{"question": "how?"}, {"target": "no"}, {"compressed_context": "new"}])
def test_a_record_that_changed_under_its_id_is_refused_by_name(records, build, change):
    build()
    with pytest.raises(InputError, match="record q3: its question, target or context is not what"):
        build([*records[:3], {**records[3], **change}])
    with pytest.raises(InputError, match="record q3"):
        build([*records, {**records[3], **change}])


@pytest.mark.parametrize("failing", [1, 3])
def test_a_stopped_build_goes_on_where_it_stopped(teacher, records, build, tmp_path, monkeypatch, failing):
    monkeypatch.setattr(teacher_cache, "BATCHES_PER_FILE", 1)
    stopped, seen = copy.deepcopy(teacher), []

    def stop(*_):
        seen.append(1)
        if len(seen) == failing:
            raise KeyboardInterrupt

    stopped.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        build(teacher=stopped)
    assert (tmp_path / "cache").exists() == (failing > 1)
    seen = count_batches(teacher)
    rest = build().collate(records)
    assert len(seen) == 3 - (failing - 1)
    (tmp_path / "cache").rename(tmp_path / "stopped")
    whole = build().collate(records)
    assert all(torch.equal(torch.as_tensor(rest[name]), torch.as_tensor(whole[name])) for name in whole)


def test_files_that_are_not_whole_are_never_used(records, build, tmp_path):
    folder = tmp_path / "cache"
    cache = build()
    (file,) = folder.glob("*.safetensors")
    (folder / ".half.safetensors.1.tmp").write_bytes(file.read_bytes()[:100])
    assert build().collate(records).keys() == cache.collate(records).keys()
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match=rf"{file.name}: damaged .* remove it"):
        build()
    (folder / "key.json").unlink()
    with pytest.raises(InputError, match=r"no key.json that tells what made them"):
        build()
    with pytest.raises(InputError, match=r"has no key.json"):
        TeacherCache(folder)


def test_a_record_that_is_missing_is_named(records, collator, build):
    collator = with_cache(collator, build(records[:4]))
    with pytest.raises(InputError, match="record q4: not in the teacher cache"):
        collator(records[3:])


def test_another_temperature_is_refused_unless_all_logits_are_kept(load, teacher, records, build, trainer_of, tmp_path):
    with pytest.raises(InputError, match=r"temperature is 2\.0, the teacher cache was made for \[3\.0\]"):
        trainer_of(load(), cache=build(), temperature=2.0).train()
    (tmp_path / "cache").rename(tmp_path / "few")
    build(top_k=None)
    cached = trainer_of(load(), cache=build(top_k=None, temperature=1.0), temperature=2.0)
    expected = loss_of(trainer_of(load(), teacher, temperature=2.0), records)
    torch.testing.assert_close(loss_of(cached, records), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("top_k", [None, 3])
def test_other_answers_and_another_vocabulary_are_refused(load, records, build, trainer_of, top_k):
    cache = build(top_k=top_k)
    changed = [{**records[0], "target": "oh"}, *records[1:]]
    with pytest.raises(InputError, match="answers are not the cached teacher's"):
        loss_of(trainer_of(load(), cache=cache), changed)
    student = load()
    student.resize_token_embeddings(VOCABULARY + 1)
    with pytest.raises(InputError, match="vocabulary"):
        loss_of(trainer_of(student, cache=cache), records)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top_k": 0}, "top_k is 0: keep at least 1 logit, or None for all"),
        ({"top_k": VOCABULARY + 1}, "k is 260: keep between 1 and 259"),
        ({"temperature": 0.0}, "temperature is 0.0: it must be above 0"),
    ],
)
def test_settings_out_of_range_are_refused_and_leave_nothing(build, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        build(**changes)
    assert not (tmp_path / "cache").exists()


def test_a_collator_without_a_teacher_is_refused(collator, build):
    with pytest.raises(InputError, match="has no teacher: say what it reads"):
        build(collator=DataCollatorForContextDistillation(collator.tokenizer))
