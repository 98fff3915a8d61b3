"""Packages that only a part of the library needs, and the extra of aag-hf that brings each."""

from collections.abc import Iterator
from contextlib import contextmanager

EXTRA_OF = {
    "trl": "train",
    "datasets": "train",
    "pyarrow": "train",
    "rich": "train",
    "matplotlib": "train",
    "rouge_score": "train",
    "tantivy": "retrieval",
    "llmlingua": "compression",
    "countryinfo": "quickstart",
    "gguf": "quickstart",
    "deepspeed": "deepspeed",
    "bitsandbytes": "quantization",
    "lm_eval": "lm-eval",
    "tensorboard": "tensorboard",
    "pydantic": "serve",
    "starlette": "serve",
    "uvicorn": "serve",
    "gradio": "demo",
}


def named(error: ModuleNotFoundError) -> ModuleNotFoundError:
    """The same error; if it is about one of those packages, it says how to install it."""
    package = (error.name or "").partition(".")[0]
    if package not in EXTRA_OF or str(error).startswith(package):
        return error
    line = f"{package} is not installed: run `pip install 'aag-hf[{EXTRA_OF[package]}]'`."
    return ModuleNotFoundError(line, name=error.name)


@contextmanager
def optional() -> Iterator[None]:
    """Import what may be missing.

    Raises:
        ModuleNotFoundError: It is missing; says how to install it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise named(error) from error
