"""Everything that is measured on a GPU, in one process: `make bench-gpu`."""

import generate
import kernel
import shared_input
import torch
import train_step


def main() -> None:
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device: `make bench` measures what a CPU does.")
    kernel.main()
    shared_input.main()
    train_step.main()
    generate.main()


if __name__ == "__main__":
    main()
