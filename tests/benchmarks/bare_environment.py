"""Imports what `make bench-gpu` runs as if only torch, Triton, transformers, PEFT and NumPy were installed.

`python tests/benchmarks/bare_environment.py FILE` runs the benchmarks that use more than layers and decoding, on a tiny
model, appends their rows to FILE, and prints the shapes of a batch that the training benchmark builds.
"""

import sys
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

INSTALLED = ("torch", "triton", "transformers", "peft", "numpy")


def with_requirements(names: tuple[str, ...]) -> set[str]:
    """Distributions and all that they require, extras aside."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        found.add(name)
        try:
            requirements = map(Requirement, requires(name) or [])
        except PackageNotFoundError:
            continue
        waiting += [r.name for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


def refused() -> set[str]:
    """Names of installed packages that belong to none of these."""
    allowed = with_requirements(INSTALLED) | {"aag-hf"}
    return {
        name for name, owners in packages_distributions().items() if not allowed & set(map(canonicalize_name, owners))
    }


class Without:
    """A finder that does not find some packages."""

    def __init__(self, finder: Any, names: set[str]):
        self.finder, self.names = finder, names

    def find_spec(self, name: str, *args: Any) -> ModuleSpec | None:
        return None if name.partition(".")[0] in self.names else self.finder.find_spec(name, *args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.finder, name)


if __name__ == "__main__":
    names = refused()
    assert {"trl", "datasets", "tantivy", "matplotlib"} <= names
    sys.meta_path = [Without(finder, names) for finder in sys.meta_path if hasattr(finder, "find_spec")]
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
    import gpu
    import measure
    import models

    measure.RESULTS = Path(sys.argv[1])
    models.base_model = lambda: models._model(64, 64, layers=2, heads=4, key_value_heads=2, vocabulary=512)
    for script in (gpu.distillation_step, gpu.compression, gpu.question):
        script.main()
    padded, packed = gpu.train_step.unequal_rows()
    print(tuple(padded["input_ids"].shape), tuple(packed["input_ids"].shape))
