"""A teacher that learns beside its student. The student's optimizer has its parameters; clipping is separate."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from aag_hf.errors import InputError

# In a folder directly below, the Trainer would resume the teacher's adapter as another adapter of the student.
TEACHER_FOLDER = Path("teacher") / "model"


class TeacherUpdates(TrainerCallback):
    """Does for a teacher what the Trainer does for its model at each optimizer step.

    Gradients of the two are clipped separately, to `max_grad_norm` each, since a teacher far from its optimum must not
    slow the student down.

    Args:
        teacher: The teacher, with parameters in the Trainer's optimizer.
    """

    def __init__(self, teacher: nn.Module):
        self.teacher = teacher

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.teacher.zero_grad()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # By now the Trainer has undone the loss scaling of half precision for all parameters of its optimizer.
        if args.max_grad_norm > 0:
            nn.utils.clip_grad_norm_(self.teacher.parameters(), args.max_grad_norm)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.teacher.zero_grad()


def add_parameters(
    optimizer: torch.optim.Optimizer, teacher: nn.Module, decayed: list[str], learning_rate: float, weight_decay: float
) -> None:
    """Let `optimizer` train the teacher's parameters that require gradients, in groups of their own.

    Args:
        optimizer: The student's optimizer. If it has the parameters already, nothing changes.
        teacher: The teacher.
        decayed: Names of the teacher's parameters with weight decay.
        learning_rate: The teacher's learning rate. A schedule scales it as it scales the student's.
        weight_decay: The weight decay of `decayed`.
    """
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    trained = {n: p for n, p in teacher.named_parameters() if p.requires_grad and id(p) not in known}
    for decay, is_decayed in ((weight_decay, True), (0.0, False)):
        parameters = [parameter for name, parameter in trained.items() if (name in decayed) == is_decayed]
        if parameters:
            optimizer.add_param_group({"params": parameters, "lr": learning_rate, "weight_decay": decay})


def check_trained_apart(student: nn.Module, teacher: nn.Module, train_teacher: bool) -> None:
    """Refuse a student and a teacher whose steps would change each other's weights.

    Args:
        student: The student.
        teacher: The teacher.
        train_teacher: Whether the teacher's parameters that require gradients are trained.

    Raises:
        InputError: They share weights that are trained, or the teacher has nothing to train although it should be
            trained.
    """
    trained = {id(parameter) for parameter in student.parameters() if parameter.requires_grad}
    if any(id(parameter) in trained for parameter in teacher.parameters()):
        raise InputError(
            "the teacher shares weights that the student trains: load the teacher apart, or train an adapter."
        )
    if train_teacher and not any(parameter.requires_grad for parameter in teacher.parameters()):
        raise InputError(
            "train_teacher is set and no parameter of the teacher requires gradients: load its adapter with "
            "is_trainable=True, or leave train_teacher off."
        )
