"""Runs several commands in one start: `commands.py '[["evaluate", …], …]'`; prints each one's exit status."""

import json
import sys

from aag_hf.cli.main import main

if __name__ == "__main__":
    for arguments in json.loads(sys.argv[1]):
        # In one piece: both processes write to the same pipe.
        sys.stdout.write(f"{arguments[0]} gave {main(arguments)}\n")
        sys.stdout.flush()
