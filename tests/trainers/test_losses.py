import json
import math
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from aag_hf.errors import InputError
from aag_hf.trainers.context_distillation.aligned_terms import average_passages, gather_tokens, selected_layers
from aag_hf.trainers.context_distillation.losses import (
    annealed_temperature,
    answer_cross_entropy,
    attention_alignment,
    distillation_kl,
    hidden_alignment,
    topk_distillation_kl,
    topk_record,
)

GOLDEN = Path(os.environ.get("AAG_GOLDEN", Path(__file__).resolve().parents[3] / "shared" / "golden"))


def golden(name):
    if not (GOLDEN / f"{name}.safetensors").is_file():
        pytest.skip(f"no {name}.safetensors in {GOLDEN}: set AAG_GOLDEN")
    return load_file(GOLDEN / f"{name}.safetensors"), json.loads((GOLDEN / f"{name}.json").read_text())


def rand(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_()


MASK = torch.tensor([[1, 1, 0, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)


def naive_kl(student, teacher, mask, temperature):
    total, count = 0, 0
    for b, t in mask.nonzero().tolist():
        p, q = (teacher[b, t] / temperature).softmax(-1), (student[b, t] / temperature).softmax(-1)
        total, count = total + (p * (p / q).log()).sum(), count + 1
    return temperature**2 * total / count


def naive_topk_kl(student, teacher, k, mask, temperature):
    total, count = 0, 0
    for b, t in mask.nonzero().tolist():
        p, q = (teacher[b, t] / temperature).softmax(-1), (student[b, t] / temperature).softmax(-1)
        top = teacher[b, t].topk(k).indices
        rest = torch.tensor([i for i in range(len(p)) if i not in top], dtype=torch.long)
        total = total + (p[top] * (p[top] / q[top]).log()).sum()
        if len(rest):
            total = total + p[rest].sum() * (p[rest].sum() / q[rest].sum()).log()
        count += 1
    return temperature**2 * total / count


def naive_hidden(students, teachers, mask, teacher_mask):
    total, count = 0, 0
    passages = teachers[0].shape[0] // students[0].shape[0]
    for student, teacher in zip(students, teachers):
        for row, t in teacher_mask.nonzero().tolist():
            if mask[row // passages, t]:
                s, h = student[row // passages, t], teacher[row, t]
                total, count = total + 1 - s @ h / (s.norm() * h.norm()), count + 1
    return total / count


def naive_attention(students, teachers, mask, teacher_mask):
    total, count = 0, 0
    passages = teachers[0].shape[0] // students[0].shape[0]
    for student, teacher in zip(students, teachers):
        for row in range(teacher.shape[0]):
            keep = (teacher_mask[row] & mask[row // passages]).nonzero().flatten().tolist()
            for i in keep:
                for j in keep:
                    difference = student[row // passages, :, i, j] - teacher[row, :, i, j]
                    total, count = total + (difference**2).sum(), count + difference.numel()
    return total / count


def assert_same_with_gradients(ours, naive, inputs):
    torch.testing.assert_close(ours, naive, rtol=1e-12, atol=1e-12)
    for a, b in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(naive, inputs)):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_distillation_kl_equals_the_formula(temperature):
    student, teacher = rand(3, 5, 7), rand(3, 5, 7, seed=1)
    naive = naive_kl(student, teacher, MASK, temperature)
    assert_same_with_gradients(distillation_kl(student, teacher, MASK, temperature), naive, [student, teacher])
    gathered = distillation_kl(student[MASK], teacher[MASK], None, temperature)
    assert_same_with_gradients(gathered, naive_kl(student, teacher, MASK, temperature), [student, teacher])


@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_topk_kl_is_exact_over_top_tokens_and_tail(k, temperature):
    student, teacher = rand(3, 5, 7), rand(3, 5, 7, seed=1)
    record = topk_record(teacher, k, [1.0, temperature])
    ours = topk_distillation_kl(student, *record[:2], record.tail_logsumexp[..., 1], MASK, temperature)
    assert_same_with_gradients(ours, naive_topk_kl(student, teacher, k, MASK, temperature), [student])
    full = distillation_kl(student, teacher, MASK, temperature)
    assert (ours - full).abs() < 1e-12 if k == 7 else ours < full


def test_answer_cross_entropy_means_over_answer_tokens_only():
    logits, labels = rand(3, 5, 7), torch.arange(15).reshape(3, 5) % 7
    labels = labels.masked_fill(~MASK, -100)
    naive = -sum(logits[b, t].log_softmax(-1)[labels[b, t]] for b, t in MASK.nonzero().tolist()) / MASK.sum()
    assert_same_with_gradients(answer_cross_entropy(logits, labels), naive, [logits])


@pytest.mark.parametrize("passages", [1, 4])
def test_alignment_pairs_teacher_rows_with_their_own_sample(passages):
    teacher_mask = rand(3 * passages, 5, seed=9) > -0.5
    students, teachers = [rand(3, 5, 6, seed=i) for i in (1, 2)], [rand(3 * passages, 5, 6, seed=i) for i in (3, 4)]
    naive = naive_hidden(students, teachers, MASK, teacher_mask)
    assert_same_with_gradients(hidden_alignment(students, teachers, MASK, teacher_mask), naive, students + teachers)

    students = [rand(3, 2, 5, 5, seed=i) for i in (1, 2)]
    teachers = [rand(3 * passages, 2, 5, 5, seed=i) for i in (3, 4)]
    naive = naive_attention(students, teachers, MASK, teacher_mask)
    assert_same_with_gradients(attention_alignment(students, teachers, MASK, teacher_mask), naive, students + teachers)


def test_gradcheck_of_every_loss():
    student, teacher = rand(3, 5, 4), rand(3, 5, 4, seed=1)
    record = topk_record(teacher, 2, [2.0])
    states, attentions = (rand(1, 5, 3), rand(2, 5, 3, seed=1)), (rand(1, 2, 5, 5), rand(2, 2, 5, 5, seed=1))
    one = MASK[:1]
    assert torch.autograd.gradcheck(lambda s, t: distillation_kl(s, t, MASK, 2.0), (student, teacher))
    assert torch.autograd.gradcheck(
        lambda s: topk_distillation_kl(s, *record[:2], record.tail_logsumexp[..., 0], MASK, 2.0), (student,)
    )
    assert torch.autograd.gradcheck(lambda s, t: hidden_alignment([s], [t], one), states)
    assert torch.autograd.gradcheck(lambda s, t: attention_alignment([s], [t], one), attentions)


def test_all_losses_are_zero_without_unmasked_tokens():
    empty = torch.zeros_like(MASK)
    logits, states, attentions = rand(3, 5, 7), rand(3, 5, 6), rand(3, 2, 5, 5)
    record = topk_record(rand(3, 5, 7, seed=1), 2, [1.0])
    losses = {
        "ce": (answer_cross_entropy(logits, torch.full((3, 5), -100)), logits),
        "kl": (distillation_kl(logits, rand(3, 5, 7, seed=1), empty, 2.0), logits),
        "topk": (topk_distillation_kl(logits, *record[:2], record.tail_logsumexp[..., 0], empty, 1.0), logits),
        "hidden": (hidden_alignment([states], [rand(6, 5, 6, seed=1)], empty), states),
        "attention": (attention_alignment([attentions], [rand(6, 2, 5, 5, seed=1)], empty), attentions),
    }
    for name, (loss, tensor) in losses.items():
        assert loss == 0, name
        assert torch.autograd.grad(loss, tensor)[0].abs().max() == 0, name


def test_zero_vectors_have_cosine_zero_and_no_gradient():
    states = rand(1, 3, 4).detach()
    states[0, 1] = 0
    states.requires_grad_()
    loss = hidden_alignment([states], [rand(1, 3, 4, seed=1)])
    gradient = torch.autograd.grad(loss, states)[0]
    assert loss.isfinite() and gradient.isfinite().all()
    assert gradient[0, 1].abs().max() == 0 and gradient[0, 0].abs().max() > 0


def test_kl_stays_finite_where_the_teacher_rules_tokens_out():
    student, teacher = rand(4, 6), rand(4, 6, seed=1).detach()
    teacher[:, 2] = -torch.inf
    loss = distillation_kl(student, teacher, None, 2.0)
    assert loss.isfinite() and torch.autograd.grad(loss, student)[0].isfinite().all()


def test_garbage_at_masked_positions_never_reaches_value_or_gradient():
    clean, teacher = rand(3, 5, 7), rand(3, 5, 7, seed=1)
    dirty = clean.detach().masked_fill(~MASK.unsqueeze(-1), torch.nan).requires_grad_()
    loss = distillation_kl(dirty, teacher, MASK, 2.0)
    torch.testing.assert_close(loss, distillation_kl(clean, teacher, MASK, 2.0))
    gradient = torch.autograd.grad(loss, dirty)[0]
    assert gradient.isfinite().all() and gradient[~MASK].abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_accumulated_in_float32(dtype):
    student, teacher = rand(3, 5, 50).to(dtype), rand(3, 5, 50, seed=1).to(dtype)
    labels = torch.zeros(3, 5, dtype=torch.long)
    pairs = [
        (distillation_kl(student, teacher, MASK, 3.0), distillation_kl(student.double(), teacher.double(), MASK, 3.0)),
        (answer_cross_entropy(student, labels), answer_cross_entropy(student.double(), labels)),
        (hidden_alignment([student], [teacher], MASK), hidden_alignment([student.double()], [teacher.double()], MASK)),
    ]
    for half, exact in pairs:
        assert half.dtype == torch.float32
        torch.testing.assert_close(half.double(), exact, rtol=1e-5, atol=1e-6)


def test_gathered_question_tokens_are_averaged_over_present_passages():
    teacher = rand(2 * 3, 5, 4)
    mask = torch.zeros(6, 5, dtype=torch.bool)
    mask[[0, 1], 2:4] = True
    mask[3, 1:2] = True
    tokens, kept = gather_tokens(teacher, mask)
    assert kept.tolist() == [[True, True]] * 2 + [[False, False], [True, False]] + [[False, False]] * 2
    average = average_passages(tokens, kept.any(-1), batch=2)
    torch.testing.assert_close(average[0], (teacher[0, 2:4] + teacher[1, 2:4]) / 2)
    torch.testing.assert_close(average[1, 0], teacher[3, 1])


def test_gathering_attentions_keeps_queries_and_keys_of_the_question():
    attentions, mask = rand(2, 3, 5, 5), torch.tensor([[0, 1, 0, 1, 0], [1, 0, 0, 0, 1]], dtype=torch.bool)
    rows, kept = gather_tokens(attentions, mask, dim=2)
    both, _ = gather_tokens(rows, mask, dim=3)
    assert kept.all()
    torch.testing.assert_close(both[1], attentions[1][:, [0, 4]][:, :, [0, 4]])


def test_selected_layers_are_first_middle_and_last():
    assert selected_layers(13, "select") == [0, 6, 12]
    assert selected_layers(1, "select") == [0]
    assert selected_layers(3, "all") == [0, 1, 2]
    with pytest.raises(InputError, match="'all' or 'select'"):
        selected_layers(3, "some")


def test_inputs_that_do_not_belong_together_are_refused():
    with pytest.raises(InputError, match="vocabulary"):
        distillation_kl(rand(3, 5, 7), rand(3, 5, 8), MASK, 1.0)
    with pytest.raises(InputError, match="mask is"):
        distillation_kl(rand(3, 5, 7), rand(3, 5, 7), MASK[:, :4], 1.0)
    with pytest.raises(InputError, match="temperature is 0"):
        distillation_kl(rand(3, 5, 7), rand(3, 5, 7), MASK, 0)
    with pytest.raises(InputError, match="multiple"):
        hidden_alignment([rand(2, 5, 7)], [rand(3, 5, 7)])
    with pytest.raises(InputError, match="layers"):
        attention_alignment([rand(2, 1, 5, 5)], [])
    with pytest.raises(InputError, match="labels is"):
        answer_cross_entropy(rand(3, 5, 7), torch.zeros(3, 4, dtype=torch.long))
    with pytest.raises(InputError, match="k is 8"):
        topk_record(rand(3, 7), 8, [1.0])


def test_golden_temperature_schedule():
    _, facts = golden("losses")
    for name, value in facts["temperature_schedule"].items():
        start, step = (part.split("=")[1] for part in name.split(","))
        assert math.isclose(annealed_temperature(float(start), int(step)), value, rel_tol=1e-6)


@pytest.mark.parametrize("start", [1, 3])
@pytest.mark.parametrize("step", [0, 500, 5000])
def test_golden_kl_with_the_missing_temperature_squared_put_in(start, step):
    tensors, _ = golden("losses")
    student, teacher = (tensors[f"in.logits_{x}"].double().requires_grad_() for x in "ST")
    temperature = annealed_temperature(start, step)
    loss = distillation_kl(student, teacher, None, temperature) / temperature**2
    case = f"cal_loss.T0_{start}.step{step}.f64"
    torch.testing.assert_close(loss, tensors[f"{case}.value"].double(), rtol=1e-5, atol=1e-5)
    gradient = torch.autograd.grad(loss, student)[0]
    torch.testing.assert_close(gradient, tensors[f"{case}.grad_S"].double(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", ["mask", "nomask", "onerowempty", "allempty"])
def test_golden_alignment_losses_where_the_empty_mask_gives_zero_instead_of_nan(case):
    tensors, _ = golden("losses")
    masks = {"mask": "in.mask", "onerowempty": "in.mask_one_row_empty", "allempty": "in.mask_all_empty"}
    mask = tensors[masks[case]] if case in masks else None
    for name, inputs, loss_function in [
        (f"att_mse_loss.probs.{case}", "att_probs", attention_alignment),
        (f"att_mse_loss.causal.{case}", "att_causal", attention_alignment),
        (f"cos_loss.{case}", "hid", hidden_alignment),
    ]:
        student, teacher = (tensors[f"in.{inputs}_{x}"].double().requires_grad_() for x in "ST")
        loss = loss_function([student], [teacher], mask)
        gradients = torch.autograd.grad(loss, [student, teacher])
        if case == "allempty":
            assert loss == 0 and all(gradient.abs().max() == 0 for gradient in gradients)
            continue
        torch.testing.assert_close(loss, tensors[f"{name}.f64.value"].double(), rtol=1e-7, atol=1e-9)
        for gradient, x in zip(gradients, "ST"):
            torch.testing.assert_close(gradient, tensors[f"{name}.f64.grad_{x}"].double(), rtol=1e-6, atol=1e-9)


def test_golden_cosine_at_a_zero_vector_has_the_value_without_its_exploding_gradient():
    tensors, facts = golden("losses")
    student = tensors["in.hid_S_zero"].double().requires_grad_()
    loss = hidden_alignment([student], [tensors["in.hid_T"].double()], tensors["in.mask"])
    torch.testing.assert_close(loss, tensors["cos_loss.zero_vector.f64.value"].double(), rtol=1e-6, atol=1e-8)
    assert facts["cases"]["cos_loss.zero_vector"]["grad_S_norm"] > 1e4
    assert torch.autograd.grad(loss, student)[0].norm() < 1


def test_golden_step_alignment_with_rows_and_masks_put_right():
    tensors, facts = golden("distill_step")
    mask, teacher_mask = tensors["context_mask"].flatten(0, 1), tensors["t_context_mask"].flatten(0, 1)
    labels = tensors["labels"] != -100
    for want, kind, stack, masks, loss_function in [
        ("row_fixed.enc_att_mse", "encoder", "attentions", (mask,), attention_alignment),
        ("row_fixed.enc_hid_cos", "encoder", "hidden_states", (mask,), hidden_alignment),
        ("student_and_teacher.enc_att_mse", "encoder", "attentions", (mask, teacher_mask), attention_alignment),
        ("student_and_teacher.enc_hid_cos", "encoder", "hidden_states", (mask, teacher_mask), hidden_alignment),
        ("decoder_label_mask.dec_hid_cos", "decoder", "hidden_states", (labels,), hidden_alignment),
    ]:
        group, name = want.split(".")
        student, teacher = (list(tensors[f"{who}.{kind}_{stack}"]) for who in ("student", "teacher"))
        value = loss_function(student, teacher, *masks)
        assert abs(value.item() - facts["components"][group][name]) < 1e-5, want


def test_golden_step_kl_at_label_positions_only_and_cross_entropy():
    tensors, facts = golden("distill_step")
    student, teacher, labels = tensors["student.logits"], tensors["teacher.logits"], tensors["labels"]
    expected = facts["components"]["cal_loss_T3"]
    assert abs(distillation_kl(student, teacher, labels != -100, 3.0) / 9 - expected["only_label_positions"]) < 1e-6
    assert abs(distillation_kl(student, teacher, None, 3.0) / 9 - expected["ref_all_positions"]) < 1e-6
    assert abs(answer_cross_entropy(student, labels) - tensors["student.ce_loss"]) < 1e-5


def test_golden_step_decoder_attentions_without_the_double_softmax():
    tensors, _ = golden("distill_step")
    student, teacher = (tensors[f"{who}.decoder_attentions"].double() for who in ("student", "teacher"))
    labels = tensors["labels"] != -100
    pairs = (labels.unsqueeze(1) & labels.unsqueeze(2))[None, :, None].expand_as(student)
    expected = (student - teacher)[pairs].square().mean()
    torch.testing.assert_close(attention_alignment(list(student), list(teacher), labels), expected)
    assert attention_alignment(list(teacher), list(teacher), labels) == 0
