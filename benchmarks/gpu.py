"""Every benchmark on a GPU, in one process: `make bench-gpu`."""

import compression
import distillation_step
import document
import generate
import kernel
import question
import torch
import train_step


def main() -> None:
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device: `make bench` measures what a CPU does.")
    for script in (kernel, train_step, generate, distillation_step, compression, question, document):
        script.main()


if __name__ == "__main__":
    main()
