"""The Triton kernels as a repository for Hugging Face's `kernels`.

``python -m aag_hf.hub.kernel_repository FOLDER OWNER/NAME`` writes it.
"""

import base64
import json
import re
import shutil
import sys
from collections.abc import Sequence
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from aag_hf.errors import InputError
from aag_hf.hub.cards import check_repository
from aag_hf.locks import temporary_folder

PACKAGE = "aag_hf.kernels.hyper_lora"
NAME, MODULE, VERSION = "hyper-lora", "hyper_lora", 1
# On a CPU torch operations run. Other GPUs were never tried.
BACKENDS = ("cpu", "cuda")

BUILD = """\
[general]
name = "{name}"
version = {version}
edition = 5
license = "Apache-2.0"
backends = [{backends}]

[general.hub]
repo-id = "{repo_id}"

[torch-noarch]
"""
FLAKE = """\
{
  description = "Linear layers with a LoRA of their own for each sample";

  inputs.kernel-builder.url = "github:huggingface/kernels";

  outputs = { self, kernel-builder }: kernel-builder.lib.genKernelFlakeOutputs { inherit self; path = ./.; };
}
"""
NAMESPACE = '''\
"""Where torch finds the operators of this build."""

from ._ops import add_op_namespace_prefix

NAMESPACE = add_op_namespace_prefix("").partition("::")[0]
'''
OPS = '''\
"""The namespace of this build's operators, which no other has."""

import torch

ops = torch.ops.{namespace}


def add_op_namespace_prefix(op_name: str) -> str:
    """The name of an operator with its namespace."""
    return f"{namespace}::{{op_name}}"
'''
CARD = """\
---
library_name: kernels
license: apache-2.0
---

# {name}

A linear layer with a LoRA adapter of its own for each sample of the batch, in Triton: `hyper_lora_linear`,
`hyper_lora_add`, and the layer `HyperLoraLinear`. On a CPU torch operations run instead.

```python
from kernels import get_kernel

hyper_lora = get_kernel("{repo_id}", version={version}, trust_remote_code=True)
y = hyper_lora.hyper_lora_linear(x, weight, a, b, scale=2.0, use_triton=True)
```

Written by [aag-hf](https://pypi.org/project/aag-hf), whose benchmarks say where the kernels pay.
"""
TEST = '''\
"""The kernels against the formula."""

import kernels
import pytest
import torch

hyper_lora = kernels.get_kernel("{repo_id}", version={version}, trust_remote_code=True)


@pytest.mark.kernels_ci
def test_each_sample_has_its_own_adapter():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x, weight = torch.randn(3, 5, 32, device=device), torch.randn(48, 32, device=device)
    a, b = torch.randn(3, 32, 8, device=device), torch.randn(3, 8, 48, device=device)
    y = hyper_lora.hyper_lora_linear(x, weight, a, b, scale=0.5, use_triton=True)
    torch.testing.assert_close(y, hyper_lora.hyper_lora_naive(x, weight, a, b, scale=0.5), rtol=1e-3, atol=1e-3)
'''


def write_kernel_repository(folder: str | Path, repo_id: str) -> None:
    """Write the sources as `kernel-builder` takes them, and the builds as `kernels` loads them.

    Kernels in Triton need no compiler, so that a build is the sources and a description of them.

    Args:
        folder: Where to; there may be nothing yet.
        repo_id: Name of the repository on the Hub, ``owner/name``.

    Raises:
        InputError: There is something, or the Hub accepts no such name.
    """
    check_repository(repo_id)
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: holds something already: remove it, or name another folder.")
    named = {"name": NAME, "version": VERSION, "repo_id": repo_id}
    texts = {
        "build.toml": BUILD.format(**named, backends=", ".join(f'"{backend}"' for backend in BACKENDS)),
        "flake.nix": FLAKE,
        "CARD.md": CARD.format(**named),
        "README.md": CARD.format(**named),
        f"tests/test_{MODULE}.py": TEST.format(**named),
        **{f"torch-ext/{MODULE}/{name}": text for name, text in _sources().items()},
    }
    with temporary_folder(folder) as partial:
        for name, text in texts.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_text(text, encoding="utf-8")
        for backend in BACKENDS:
            _build(partial / "torch-ext" / MODULE, partial / "build" / f"torch-{backend}", backend)
        partial.rename(folder)


def _sources() -> dict[str, str]:
    """This package's files, as they stand in a repository: a copy imports nothing but itself."""
    spec = find_spec(PACKAGE)
    assert spec is not None and spec.origin is not None
    texts = {path.name: path.read_text(encoding="utf-8") for path in sorted(Path(spec.origin).parent.glob("*.py"))}
    ours = re.compile(rf"^( *from ){re.escape(PACKAGE)}(?:\.(\w+))? import", flags=re.MULTILINE)
    copied = {name: ours.sub(lambda found: f"{found[1]}.{found[2] or ''} import", text) for name, text in texts.items()}
    copied["namespace.py"] = NAMESPACE
    copied["__init__.py"] = copied["__init__.py"].replace("\nfrom .", "\nfrom . import layers\nfrom .", 1)
    copied["__init__.py"] = copied["__init__.py"].replace("__all__ = [\n", '__all__ = [\n    "layers",\n', 1)
    return copied


def _build(source: Path, target: Path, backend: str) -> None:
    shutil.copytree(source, target)
    content = b"".join(path.read_bytes() for path in sorted(target.iterdir()))
    identifier = f"_{MODULE}_{backend}_{sha256(content).hexdigest()[:7]}"
    (target / "_ops.py").write_text(OPS.format(namespace=identifier), encoding="utf-8")
    digests = {path.name: base64.b64encode(sha256(path.read_bytes()).digest()).decode() for path in target.iterdir()}
    metadata = {
        "id": identifier,
        "name": NAME,
        "version": VERSION,
        "license": "Apache-2.0",
        "python-depends": [],
        "backend": {"type": backend},
        "digest": {"algorithm": "sha256", "files": dict(sorted(digests.items()))},
    }
    (target / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")


def main(argv: Sequence[str]) -> None:
    """Run as a program."""
    if len(argv) != 2:
        sys.exit("usage: python -m aag_hf.hub.kernel_repository FOLDER OWNER/NAME")
    try:
        write_kernel_repository(*argv)
    except InputError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
