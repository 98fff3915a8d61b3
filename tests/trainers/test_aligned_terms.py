"""The alignment terms against the same states read one record at a time, compared one pair of tokens at a time."""

import pytest
import torch

from aag_hf.collators import DataCollatorForContextDistillation, ReaderPrompt
from aag_hf.errors import InputError
from aag_hf.trainers.answer_logits import answer_outputs
from aag_hf.trainers.context_distillation.aligned_terms import ATTENTION, HIDDEN, Reading, aligned_terms

STATES = {"output_hidden_states": True, "output_attentions": True}
LAYERS = {
    "all": lambda stack: stack,
    "select": lambda stack: [stack[i] for i in sorted({0, len(stack) // 2, len(stack) - 1})],
}
STUDENTS = {
    "prompt": ReaderPrompt("compressed"),
    "one passage": ReaderPrompt("passages", fid=True),
    "passages": ReaderPrompt("passages", 2, fid=True),
}


@pytest.fixture
def collator_of(tiny_tokenizer):
    def collator_of(student="prompt", **options):
        readers = {"student": STUDENTS[student], "teacher": ReaderPrompt("passages", 3, fid=True)}
        options = {"question_mask": True, "needs_features": True, **readers, **options}
        return DataCollatorForContextDistillation(tiny_tokenizer, is_encoder_decoder=True, **options)

    return collator_of


def halves(batch, dtype=torch.float64):
    """Inputs of student and teacher, features in the models' precision."""
    batch = {name: value.to(dtype) if name == "features" else value for name, value in batch.items()}
    student = {name: value for name, value in batch.items() if not name.startswith("teacher_")}
    return student, {name[8:]: value for name, value in batch.items() if name.startswith("teacher_")}


def read(model, inputs):
    return Reading(inputs, answer_outputs(model, {**inputs, **STATES}).states)


def ours(models, batch, alignment="question", layers="all"):
    readings = [read(model, inputs) for model, inputs in zip(models, halves(batch))]
    return aligned_terms(*readings, [HIDDEN, ATTENTION], alignment, layers)


class Mean:
    def __init__(self):
        self.total, self.count = 0, 0

    def add(self, values):
        self.total, self.count = self.total + values.sum(), self.count + values.numel()

    @property
    def value(self):
        return self.total / self.count


def compare(means, name, student, teacher, student_places, teacher_places):
    """Adds one sample: rows of states, each with the places of its tokens, averaged over the rows."""
    for s, t in zip(student, teacher, strict=True):
        s, t = (
            torch.stack([pick(row, place) for row, place in zip(rows, places)]).mean(0)
            for rows, places in ((s, student_places), (t, teacher_places))
        )
        if s.dim() == 2:
            means[HIDDEN, name].add(1 - (s * t).sum(-1) / (s.norm(dim=-1) * t.norm(dim=-1)))
        else:
            means[ATTENTION, name].add((s - t) ** 2)


def pick(row, places):
    return row[places] if row.dim() == 2 else row[:, places][:, :, places]


def plain(models, collator, records, alignment="question", layers="all"):
    """The definition: each record alone, so that no row can meet another's and nothing is padded but its passages."""
    means = {(kind, part): Mean() for kind in (HIDDEN, ATTENTION) for part in ("encoder", "decoder")}
    for record in records:
        readings = [read(model, inputs) for model, inputs in zip(models, halves(collator([record])))]
        answer = (readings[0].inputs["labels"][0] != -100).nonzero().flatten()
        for stack in ("hidden_states", "attentions"):
            both = [LAYERS[layers](reading.states["decoder_" + stack]) for reading in readings]
            compare(means, "decoder", *both, [answer], [answer])
            both = [LAYERS[layers](reading.states["encoder_" + stack]) for reading in readings]
            marks = [r.inputs["question_mask" if alignment == "question" else "attention_mask"] for r in readings]
            places = [[m.nonzero().flatten() for m in mask.flatten(0, -2)] for mask in marks]
            if alignment == "question":
                compare(means, "encoder", *both, *places)
                continue
            for i, theirs in enumerate(places[1]):
                row = 0 if len(places[0]) == 1 else i
                if row < len(places[0]):
                    shared = range(min(len(places[0][row]), len(theirs)))
                    student, teacher = [x[row : row + 1] for x in both[0]], [x[i : i + 1] for x in both[1]]
                    compare(means, "encoder", student, teacher, [shared], [shared])
    return {kind: means[kind, "encoder"].value + means[kind, "decoder"].value for kind in (HIDDEN, ATTENTION)}


@pytest.mark.parametrize("layers", ["all", "select"])
@pytest.mark.parametrize("alignment", ["question", "position"])
@pytest.mark.parametrize("student", STUDENTS)
def test_terms_and_their_gradients_equal_those_of_each_record_alone(
    load_fid, passage_records, collator_of, student, alignment, layers
):
    models, collator = (load_fid("hyperlora", init_weights=False), load_fid(seed=2)), collator_of(student)
    trained = [parameter for parameter in models[0].parameters() if parameter.requires_grad]
    terms = ours(models, collator(passage_records), alignment, layers)
    expected = plain(models, collator, passage_records, alignment, layers)
    assert set(terms) == {HIDDEN, ATTENTION}
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-9, atol=1e-12, msg=name)
        for a, b in zip(*(torch.autograd.grad(x, trained, retain_graph=True) for x in (terms[name], value))):
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-11, msg=name)


@pytest.mark.parametrize("kind", ["llama"], indirect=True)
def test_causal_models_align_the_states_that_predict_the_answer(load, records, tiny_tokenizer):
    """In single precision: Llama's eager attention makes NaN of a padded row's mask in double."""
    collator = DataCollatorForContextDistillation(
        tiny_tokenizer, teacher=ReaderPrompt("compressed"), needs_features=True
    )
    models = load("hyperlora", init_weights=False).float(), load().float()
    for model in models:
        model.set_attn_implementation("eager")
    means = {(kind, "decoder"): Mean() for kind in (HIDDEN, ATTENTION)}
    for record in records:
        readings = [read(model, inputs) for model, inputs in zip(models, halves(collator([record]), torch.float32))]
        places = [[(r.inputs["labels"][0] != -100).nonzero().flatten() - 1] for r in readings]
        for stack in ("hidden_states", "attentions"):
            compare(means, "decoder", *(reading.states[stack] for reading in readings), *places)
    readings = [read(model, inputs) for model, inputs in zip(models, halves(collator(records), torch.float32))]
    for name, value in aligned_terms(*readings, [HIDDEN, ATTENTION]).items():
        torch.testing.assert_close(value, means[name, "decoder"].value, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("alignment", ["question", "position"])
def test_a_batch_without_shared_tokens_gives_zero_and_no_gradient(load_fid, passage_records, collator_of, alignment):
    models = load_fid("hyperlora", init_weights=False), load_fid(seed=2)
    batch = collator_of()(passage_records)
    for prefix in ("", "teacher_"):
        batch[prefix + "labels"][:] = -100
        batch[prefix + "question_mask"][:] = False
    student, teacher = (read(model, inputs) for model, inputs in zip(models, halves(batch)))
    student.inputs["attention_mask"] = torch.zeros_like(student.inputs["attention_mask"])
    for value in aligned_terms(student, teacher, [HIDDEN, ATTENTION], alignment).values():
        trained = [parameter for parameter in models[0].parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(value, trained, allow_unused=True, retain_graph=True)
        assert value == 0 and not any(g.any() for g in gradients if g is not None)


def test_a_sample_without_its_question_leaves_the_others_as_they_are(load_fid, passage_records, collator_of):
    """A mask that is empty in one row only."""
    models, collator = (load_fid("hyperlora", init_weights=False), load_fid(seed=2)), collator_of()
    batch = collator(passage_records)
    for prefix in ("", "teacher_"):
        batch[prefix + "labels"][1] = -100
        batch[prefix + "question_mask"][1] = False
    expected = ours(models, collator([passage_records[i] for i in (0, 2, 3)]))
    for name, value in ours(models, batch).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-12)


def test_models_of_unequal_depth_align_selected_layers_only(load_fid, passage_records, collator_of):
    models = load_fid("hyperlora"), load_fid(seed=2)
    student, teacher = (read(model, inputs) for model, inputs in zip(models, halves(collator_of()(passage_records))))
    deeper = teacher._replace(states={name: (*stack, stack[-1]) for name, stack in teacher.states.items()})
    with pytest.raises(InputError, match="3 student and 4 teacher layers: align equally many, as layers='select'"):
        aligned_terms(student, deeper, [HIDDEN])
    assert aligned_terms(student, deeper, [HIDDEN], layers="select")[HIDDEN] > 0


def test_questions_that_nobody_marked_are_refused(load_fid, passage_records, collator_of):
    batch = collator_of(question_mask=False)(passage_records)
    with pytest.raises(InputError, match="does not say where questions stand: give the collator question_mask=True"):
        ours((load_fid("hyperlora"), load_fid(seed=2)), batch)
