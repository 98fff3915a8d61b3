"""Checkpoints from which a stopped training continues: complete ones of the same run."""

import json
import shutil
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import SaveStrategy

from aag_hf.errors import InputError
from aag_hf.manifest import MANIFEST, Manifest

# What each state of a Trainer has, of whatever version.
_OF_STATE = {"global_step", "epoch", "max_steps", "log_history", "stateful_callbacks"}


class WholeRun(TrainerCallback, ExportableState):
    """Gives a resumed run the loss and seconds of the whole run, and records what its checkpoints were made from.

    Args:
        trainer: The run's Trainer, which forgets its losses when it resumes.
        made_by: The manifest of the run.
    """

    def __init__(self, trainer: Seq2SeqTrainer, made_by: Manifest):
        self.trainer = trainer
        self.made_by = made_by
        self._seconds_before = 0.0
        self._begun: float | None = None

    @property
    def seconds(self) -> float:
        """The seconds of training so far, without pauses."""
        return self._seconds_before + (0.0 if self._begun is None else time.monotonic() - self._begun)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside its weights."""
        if self._begun is None:
            return {}
        losses = {
            "logged": self.trainer._total_loss_scalar,
            "since": self.trainer._tr_loss.item(),
            "logged_at": self.trainer._globalstep_last_logged,
        }
        return {"seconds": self.seconds, **losses}

    def on_train_begin(self, args: Seq2SeqTrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """Continue where the checkpoint's run was."""
        self._begun = time.monotonic()
        kept = state.stateful_callbacks.get(type(self).__name__)
        if kept:
            self._seconds_before = kept["seconds"]
            self.trainer._total_loss_scalar = kept["logged"]
            self.trainer._tr_loss = torch.tensor(kept["since"], device=args.device)
            self.trainer._globalstep_last_logged = kept["logged_at"]
            self.trainer._initial_global_step = 0

    def on_step_end(self, args: Seq2SeqTrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the manifest once a step has worked, before the first checkpoint."""
        record = Path(args.output_dir) / MANIFEST
        if args.should_save and args.save_strategy != SaveStrategy.NO and not record.is_file():
            self.made_by.write(record)


def last_whole_checkpoint(arguments: Seq2SeqTrainingArguments) -> Path | None:
    """The checkpoint to continue from, if there is one."""
    whole = [path for path in _checkpoints(arguments) if _is_whole(path, arguments.world_size)]
    return max(whole, key=_step, default=None)


def remove_incomplete(arguments: Seq2SeqTrainingArguments, made_by: Manifest) -> None:
    """Remove and name the checkpoints that a killed run was writing or removing.

    Raises:
        InputError: The complete checkpoints were made from something else.
    """
    folder = Path(arguments.output_dir)
    record = folder / MANIFEST
    last = last_whole_checkpoint(arguments)
    if last is not None:
        if not record.is_file():
            raise InputError(
                f"{folder}: holds checkpoints, and no {MANIFEST} tells of which run: remove them, or pass "
                "--overwrite true to start anew."
            )
        made_by.check(Manifest.read(record), folder, resuming=True)
    elif record.is_file() and not arguments.save_only_model:
        record.unlink()
    for path in _checkpoints(arguments):
        if not arguments.save_only_model and not _is_whole(path, arguments.world_size):
            print(f"{path}: is not whole, since a run was killed at it: removed.", file=sys.stderr)
            shutil.rmtree(path)
    if arguments.save_total_limit and not arguments.load_best_model_at_end:
        # The Trainer removes them at a later step, but a run that was killed at its last save takes none.
        for path in sorted(_checkpoints(arguments), key=_step)[: -arguments.save_total_limit]:
            shutil.rmtree(path)


def remove_unused(arguments: Seq2SeqTrainingArguments) -> None:
    """Remove the folder of a run that saved no checkpoint, since nothing can be resumed."""
    folder = Path(arguments.output_dir)
    if folder.is_dir() and all(path.name == MANIFEST for path in folder.iterdir()):
        shutil.rmtree(folder)


def _checkpoints(arguments: Seq2SeqTrainingArguments) -> list[Path]:
    found = Path(arguments.output_dir).glob("checkpoint-*")
    return [path for path in found if path.is_dir() and path.name.partition("-")[2].isdigit()]


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.partition("-")[2])


def _is_whole(checkpoint: Path, processes: int) -> bool:
    """The Trainer writes its state last. Other processes write their random state in their own time.

    A checkpoint without the optimizer's state can be loaded, but training cannot continue from it.
    """
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    if not (isinstance(state, dict) and state.keys() >= _OF_STATE):
        return False
    random = ["rng_state.pth"] if processes == 1 else [f"rng_state_{number}.pth" for number in range(processes)]
    optimizer = [*checkpoint.glob("optimizer*"), *checkpoint.glob("global_step*")]
    is_complete = optimizer and all((checkpoint / name).is_file() for name in random)
    is_of_step = state["global_step"] == _step(checkpoint)
    return bool(is_complete) and is_of_step and all(map(_is_readable, checkpoint.rglob("*")))


def _is_readable(path: Path) -> bool:
    if path.suffix in (".pt", ".pth", ".bin"):
        return zipfile.is_zipfile(path)
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt"):
                return True
        except SafetensorError:
            return False
    return True
