"""Refuses gradient checkpointing that gives wrong gradients when training in parallel."""

from accelerate import Accelerator, DistributedType
from torch import nn
from transformers import TrainingArguments

from aag_hf.errors import InputError
from aag_hf.hyperlora.adapter_scope import CONTAINER
from aag_hf.trainers.answer_logits import innermost

REMEDY = "set gradient_checkpointing_kwargs={'use_reentrant': False}, which is the default of transformers"


def check_checkpointing(model: nn.Module, args: TrainingArguments, accelerator: Accelerator) -> None:
    """Refuse checkpointing that fails with the launcher's engine, or silently trains on wrong gradients.

    Args:
        model: The trained model.
        args: The arguments of its training.
        accelerator: The accelerator, which knows the engine.

    Raises:
        InputError: Checkpointing is reentrant on several processes, or FSDP's own over a model with HyperLoRA.
    """
    engine = accelerator.distributed_type
    if engine != DistributedType.NO and not args.ddp_static_graph and _is_reentrant(model, args):
        raise InputError(
            f"reentrant gradient checkpointing runs a backward pass inside the backward pass, where {engine.value} "
            "takes gradients for complete that are not: DDP averages some of them too early without a word, ZeRO-3 "
            f"stops: {REMEDY}, and `prepare_model_for_kbit_training` the same if you call it."
        )
    plugin = accelerator.state.fsdp_plugin if engine == DistributedType.FSDP else None
    if plugin is not None and plugin.activation_checkpointing and hasattr(innermost(model), CONTAINER):
        raise InputError(
            "FSDP's activation checkpointing recomputes a layer when the question's adapter is gone: set "
            "fsdp_activation_checkpointing to false and gradient_checkpointing to true."
        )


def _is_reentrant(model: nn.Module, args: TrainingArguments) -> bool:
    if args.gradient_checkpointing:
        # What the Trainer will switch on replaces what the model came with. Torch's own default is reentrant;
        # transformers chooses the other kind if nothing at all is given.
        asked = args.gradient_checkpointing_kwargs or {"use_reentrant": False}
        return bool(asked.get("use_reentrant", True))
    functions = [m._gradient_checkpointing_func for m in model.modules() if getattr(m, "gradient_checkpointing", False)]
    return any(getattr(function, "keywords", {}).get("use_reentrant", True) for function in functions)
