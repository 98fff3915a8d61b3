"""``aag memorize``: reads documents into memories that adapters are made of."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aag_hf import DocumentMemory
from aag_hf.awakening import AwakeningModel
from aag_hf.awakening.documents import text_of
from aag_hf.awakening.loading import saved_config, saved_directory
from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.boundary import run_command
from aag_hf.cli.options import LoadingOptions
from aag_hf.cli.output import plain_console
from aag_hf.cli.processes import device, use_threads
from aag_hf.cli.stage import OVERWRITE, called, claimed, manifest
from aag_hf.data.files import SUFFIXES, read_rows
from aag_hf.data.progress import PartialOutput
from aag_hf.errors import InputError


@dataclass(kw_only=True)
class MemorizeOptions(LoadingOptions):
    """Options of ``aag memorize``."""

    model: str = field(metadata={"help": "A saved model whose adapter is made from documents: directory or Hub id."})
    input: str = field(
        metadata={"help": "A text file, which is one document, or a file of rows with text and id or title."}
    )
    output: str = field(metadata={"help": "File to write; its name ends in .safetensors."})
    batch_size: int = field(default=32, metadata={"help": "Documents per forward pass."})
    overwrite: bool = field(default=False, metadata={"help": OVERWRITE})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.output.endswith(".safetensors"):
            raise InputError(f"output is {self.output}: expected a name that ends in .safetensors.")


def memorize(options: MemorizeOptions) -> DocumentMemory:
    """Read the documents and write their memories.

    Returns:
        The memories, one row per document.

    Raises:
        InputError: A file cannot be used, a document cannot be read, or the model reads no documents.
    """
    use_threads(options.threads)
    output = Path(options.output)
    directory = saved_directory(options.model)
    if not (directory / "document_encoder").is_dir():
        raise InputError(f"{options.model}: its adapter is not made from documents: it has no document encoder.")
    documents = read_documents(Path(options.input))
    base = saved_config(directory).base_model_name_or_path
    settings = options.loading_settings() | called([{"id": name} for name in documents])
    made_by = manifest("memorize", settings, model=options.model, base=base, input=options.input)
    with claimed(output, made_by, options.overwrite) as finished:
        if finished:
            return DocumentMemory.from_pretrained(output)
        model = AwakeningModel.from_pretrained(directory, **options.loading_arguments()).to(device())
        assert model.document_encoder is not None
        named = [f"{options.input}, document {name!r}" for name in documents]
        model.document_encoder.check(list(documents.values()), named)
        memory = model.memorize(list(documents.values()), list(documents), options.batch_size)
        PartialOutput(output, made_by).finish(lambda: memory.save_pretrained(output))
    return memory


def read_documents(path: Path) -> dict[str, str]:
    """The documents of a file by name. A file of rows gives one document per row, any other file one document.

    Raises:
        InputError: The file or a row cannot be used, or two rows have one name.
    """
    if not path.name.endswith(SUFFIXES):
        return dict([text_of(path)])
    documents: dict[str, str] = {}
    for where, row in read_rows(path):
        text = row.get("text") if isinstance(row, dict) else None
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{where}: has no text: expected rows with text, and id or title.")
        name = str(row.get("id") or row.get("title") or len(documents))
        if name in documents:
            raise InputError(f"{where}: a document before it is called {name!r} too: give each an id of its own.")
        documents[name] = text
    if not documents:
        raise InputError(f"{path}: holds no documents.")
    return documents


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    (options,) = parse_arguments("memorize", (MemorizeOptions,), argv)
    memory = memorize(options)
    size = memory.tensor.nbytes / len(memory) / 1000
    plain_console().print(f"{options.output}: {len(memory)} documents, {size:,.0f} kB each")


if __name__ == "__main__":
    sys.exit(run_command("memorize", lambda: main(sys.argv[1:])))
