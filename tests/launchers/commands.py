"""Runs several commands in one start: `commands.py '[["evaluate", …], …]'`; prints each one's exit status."""

import json
import sys

from aag_hf.cli.main import main

if __name__ == "__main__":
    for arguments in json.loads(sys.argv[1]):
        print(arguments[0], "gave", main(arguments), flush=True)
