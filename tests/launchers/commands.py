"""Runs several commands in one start: `commands.py '[["evaluate", …], …]'`; prints each one's exit status."""

import json
import os
import sys

from accelerate import DistributedType, PartialState

from aag_hf.cli.main import main


def set_up_processes() -> list[str]:
    """Set CPU processes up for an engine that looks for accelerators; returns what a training command must be told."""
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        # Accelerate offers FSDP on accelerators only: let it take two CPU processes for two of these.
        PartialState(cpu=True).distributed_type = DistributedType.MULTI_GPU
    elif os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        # Without an accelerator the Trainer's `--deepspeed` names no backend, and each process stays alone.
        PartialState(backend="gloo")
    else:
        return []
    return ["--accelerator_config", '{"use_configured_state": true}']


if __name__ == "__main__":
    *launcher, commands = sys.argv[1:]
    configured = set_up_processes()
    for command, *arguments in json.loads(commands):
        status = main([command, *launcher, *arguments, *configured])
        # In one piece: both processes write to the same pipe.
        sys.stdout.write(f"{command} gave {status}\n")
        sys.stdout.flush()
