"""The distillation step against vectors of the reference's: its right parts as they are, its wrong ones mended."""

import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file, save_file

from aag_hf import FiDT5ForConditionalGeneration, HyperLoraConfig
from aag_hf.trainers import ContextDistillationConfig, ContextDistillationTrainer, answer_cross_entropy, distillation_kl
from aag_hf.trainers.context_distillation.losses import annealed_temperature

GOLDEN = Path(os.environ.get("AAG_GOLDEN", Path(__file__).resolve().parents[3] / "shared" / "golden"))
FILES = sorted(GOLDEN.glob("distill_step*.safetensors"))
KINDS = {
    "hypernet": "encoder_block_layer_SelfAttention_{0}x{0}",
    "decoder_hypernet": "decoder_block_layer_SelfAttention_{0}x{0}",
    "cross_hypernet": "decoder_block_layer_EncDecAttention_{0}x{0}",
}
MLP_LAYERS = {
    "pre_down_linear": ("down", 0),
    "down_linear": ("down", 2),
    "pre_up_linear": ("up", 0),
    "up_linear": ("up", 2),
}
# The reference's weights of the distillation term, and its temperature before annealing.
KD_WEIGHT, TEMPERATURE = 0.4, 3.0

pytestmark = pytest.mark.skipif(not FILES, reason=f"no distill_step*.safetensors in {GOLDEN}: set AAG_GOLDEN")


def under(tensors, prefix):
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def load_fid(weights, config, folder):
    folder.mkdir()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "t5"}))
    return FiDT5ForConditionalGeneration.from_pretrained(folder, attn_implementation="eager")


def hypernetwork_parameters(student):
    """By golden name: ``<net>.<layer>.<weight or bias>``."""
    base = student.get_base_model()
    network = base.hypernetworks.hyperlora_net["default"]
    return {
        f"{net}.{layer}.{name}": parameter
        for net, kind in KINDS.items()
        for layer, (part, index) in MLP_LAYERS.items()
        for name, parameter in getattr(network, part)[kind.format(base.config.d_model)][index].named_parameters()
    }


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def step(request, tmp_path):
    """Student, teacher, the batch that the trainer gets, and what the reference made of it."""
    tensors, facts = load_file(request.param), json.loads(request.param.with_suffix(".json").read_text())
    base_file = GOLDEN / facts["student_base"].split()[0]
    config = json.loads(base_file.with_suffix(".json").read_text())["config"]
    rank = int(re.search(r"rank (\d+)", facts["student_name"]).group(1))
    base = load_fid(under(load_file(base_file), "sd."), config, tmp_path / "student")
    adapter = HyperLoraConfig(
        task_type="SEQ_2_SEQ_LM",
        r=rank,
        lora_alpha=1,
        use_rslora=True,
        feature_dim=tensors["features"].shape[1],
        hidden_dim=8,
        hypernetwork="mlp",
        layer_index_scale=1.0,
        target_modules=r".*\.(q|v)",
    )
    student = get_peft_model(base, adapter)
    for name, parameter in hypernetwork_parameters(student).items():
        parameter.data.copy_(tensors[f"hyper.{name}"])
    batch = {
        "input_ids": tensors["context_ids"],
        "attention_mask": tensors["context_mask"].long(),
        "labels": tensors["labels"],
        "features": tensors["features"],
        "teacher_input_ids": tensors["t_context_ids"],
        "teacher_attention_mask": tensors["t_context_mask"].long(),
        "teacher_labels": tensors["labels"],
    }
    teacher = load_fid(under(tensors, "teacher.sd."), config, tmp_path / "teacher")
    return SimpleNamespace(student=student.eval(), teacher=teacher.eval(), batch=batch, tensors=tensors, facts=facts)


@pytest.fixture
def trainer(step, options):
    arguments = ContextDistillationConfig(
        **options,
        alpha=1 - KD_WEIGHT,
        temperature=TEMPERATURE,
        temperature_schedule="annealed",
        hidden_weight=1.0,
        attention_weight=1.0,
        alignment="position",
    )
    return ContextDistillationTrainer(step.student, arguments, teacher_model=step.teacher)


def near(actual, expected, atol):
    torch.testing.assert_close(torch.as_tensor(actual), torch.as_tensor(expected), rtol=0, atol=atol)


def outputs_of(step, prefix):
    inputs = {name: step.batch[prefix + name] for name in ("input_ids", "attention_mask", "labels")}
    states = {"output_hidden_states": True, "output_attentions": True}
    if prefix:
        return step.teacher(**inputs, **states)
    return step.student(**inputs, **states, features=step.batch["features"])


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["", "teacher_"])
def test_logits_and_states_of_both_models_equal_the_reference(step, prefix):
    outputs, role = outputs_of(step, prefix), prefix.rstrip("_") or "student"
    near(outputs.logits, step.tensors[f"{role}.logits"], 1e-4)
    near(outputs.loss, step.tensors[f"{role}.ce_loss"], 1e-5)
    for name in ("encoder_hidden_states", "encoder_attentions", "decoder_hidden_states", "decoder_attentions"):
        near(torch.stack(outputs[name]), step.tensors[f"{role}.{name}"], 1e-4)


@torch.no_grad()
def test_terms_equal_the_reference_with_rows_masks_and_padding_put_right(step, trainer):
    parts = step.facts["components"]
    loss = trainer.compute_loss(step.student, dict(step.batch))
    terms = {n: value.item() for n, value in trainer.compute_terms(step.student, dict(step.batch)).values.items()}
    encoder, decoder = parts["student_and_teacher"], parts["decoder_label_mask"]
    near(terms["answer_cross_entropy"], step.tensors["student.ce_loss"].item(), 1e-5)
    near(terms["distillation_kl"] / TEMPERATURE**2, parts["cal_loss_T3"]["only_label_positions"], 1e-5)
    near(terms["hidden_alignment"], encoder["enc_hid_cos"] + decoder["dec_hid_cos"], 1e-5)
    near(terms["attention_alignment"], encoder["enc_att_mse"] + decoder_attention_error(step), 1e-5)
    weights = {"answer_cross_entropy": 1 - KD_WEIGHT, "distillation_kl": KD_WEIGHT}
    near(loss.item(), sum(weights.get(name, 1.0) * value for name, value in terms.items()), 1e-5)


def decoder_attention_error(step):
    """Between answer tokens, of probabilities: the reference softmaxed them again, and took the context's positions."""
    student, teacher = (step.tensors[f"{role}.decoder_attentions"] for role in ("student", "teacher"))
    answers = step.tensors["labels"] != -100
    pairs = (answers.unsqueeze(1) & answers.unsqueeze(2))[None, :, None].expand_as(student)
    return (student - teacher)[pairs].square().mean().item()


@pytest.mark.parametrize(("case", "at"), [("kd", 0), ("kd_step1234", 1234)])
def test_distillation_equals_the_reference_where_padding_is_counted_and_not_scaled_as_there(step, case, at):
    """Its gradient runs through hypernetwork, adapter and student; of the mended step it left none."""
    loss = distilled_as_the_reference(step, annealed_temperature(TEMPERATURE, at))
    near(loss.item(), step.tensors[f"{case}.loss"].item(), 1e-5)
    loss.backward()
    expected = under(step.tensors, f"{case}.grad.")
    for name, parameter in hypernetwork_parameters(step.student).items():
        norm = step.facts["cases"][case]["hyper_grad_norms"][name]
        assert parameter.grad.norm().item() == pytest.approx(norm, rel=1e-4), name
        if expected:
            near(parameter.grad, expected[name], 1e-4 * expected[name].abs().max().item())


def distilled_as_the_reference(step, temperature):
    with torch.no_grad():
        teacher = outputs_of(step, "teacher_").logits
    student = outputs_of(step, "").logits
    divergence = distillation_kl(student, teacher, None, temperature) / temperature**2
    return (1 - KD_WEIGHT) * answer_cross_entropy(student, step.batch["labels"]) + KD_WEIGHT * divergence


def test_without_distillation_loss_and_gradients_equal_the_reference(step, options):
    trainer = ContextDistillationTrainer(step.student, ContextDistillationConfig(**options))
    loss = trainer.compute_loss(step.student, {n: v for n, v in step.batch.items() if not n.startswith("teacher_")})
    near(loss.item(), step.tensors["nodistill.loss"].item(), 1e-5)
    loss.backward()
    for name, parameter in hypernetwork_parameters(step.student).items():
        norm = step.facts["cases"]["nodistill"]["hyper_grad_norms"][name]
        assert parameter.grad.norm().item() == pytest.approx(norm, rel=1e-4), name
