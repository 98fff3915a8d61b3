"""What a training run prints: a bar on a terminal or a line per minute elsewhere, and a line per log and evaluation."""

from contextlib import ExitStack
from typing import Any

from transformers import Seq2SeqTrainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from aag_hf.data.reporting import Reporting

# How long it took is told at the end, and the bar shows the speed.
_NOT_TOLD = ("runtime", "per_second", "epoch", "total_flos", "train_loss")


class TrainingProgress(TrainerCallback):
    """A scope of training, in which the first process prints this in place of the Trainer's bars and dictionaries.

    Args:
        trainer: The trainer.
    """

    def __init__(self, trainer: Seq2SeqTrainer):
        for callback in (ProgressCallback, PrinterCallback):
            trainer.remove_callback(callback)
        trainer.add_callback(self)
        self._shown = ExitStack()
        self._reporting: Reporting | None = None

    def __enter__(self) -> "TrainingProgress":
        return self

    def __exit__(self, *_: object) -> None:
        """End the bar, also after an error."""
        self._shown.close()
        self._reporting = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin the bar at the step to continue from."""
        if state.is_world_process_zero:
            reporting = Reporting("Training", state.max_steps, state.global_step, shown=not args.disable_tqdm)
            self._reporting = self._shown.enter_context(reporting)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar."""
        if self._reporting is not None:
            self._reporting.reach(state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Print a line of figures."""
        told = {name: value for name, value in (logs or {}).items() if not name.endswith(_NOT_TOLD)}
        if self._reporting is not None and told:
            figures = "  ".join(f"{name} {float(value):.4g}" for name, value in told.items())
            self._reporting.say(f"step {state.global_step} of {state.max_steps}  {figures}")
