"""``aag export``: turns the adapters of questions or of documents into plain PEFT LoRAs."""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aag_hf import to_lora
from aag_hf.awakening import AwakeningModel
from aag_hf.awakening.documents import text_of
from aag_hf.awakening.loading import saved_config, saved_directory
from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.boundary import run_command
from aag_hf.cli.options import LoadingOptions
from aag_hf.cli.output import JSON_HELP, plain_console, print_json
from aag_hf.cli.processes import use_threads
from aag_hf.cli.stage import OVERWRITE, is_finished, manifest, new_directory, refuse_inputs, replacing
from aag_hf.data.records import read_records
from aag_hf.errors import InputError
from aag_hf.hyperlora import save_lora
from aag_hf.locks import locked, remove_leftovers

# File systems take 255 bytes, and an unfinished folder's name adds some.
LONGEST_NAME = 180


@dataclass(kw_only=True)
class ExportOptions(LoadingOptions):
    """Options of ``aag export``."""

    model: str = field(metadata={"help": "A saved model whose reader has a hypernetwork."})
    output_dir: str = field(
        metadata={"help": "Folder of the LoRA; with input, it gets one folder per question, named by its id."}
    )
    question: str | None = field(default=None, metadata={"help": "The question whose adapter is exported."})
    input: str | None = field(default=None, metadata={"help": "Records whose questions' adapters are exported."})
    document: str | None = field(
        default=None,
        metadata={"help": "A text or the path of a text file; its adapter is exported, if the model reads documents."},
    )
    rank: int | None = field(
        default=None, metadata={"help": "Cut the adapter to this rank, by its largest singular values."}
    )
    mean: bool = field(
        default=False,
        metadata={"help": "With input: export one adapter, made from the mean of the questions' features."},
    )
    overwrite: bool = field(default=False, metadata={"help": OVERWRITE})
    json: bool = field(default=False, metadata={"help": JSON_HELP})

    def __post_init__(self) -> None:
        super().__post_init__()
        if [self.question, self.input, self.document].count(None) != 2:
            raise InputError("name one of question, document and input, a file of records.")
        if self.mean and self.input is None:
            raise InputError("mean is taken over the questions of input: name a file of records.")


def export(options: ExportOptions) -> list[Path]:
    """Write each question's adapter, or their mean, as a LoRA that plain PEFT loads.

    Returns:
        The folders of the LoRAs.

    Raises:
        InputError: The reader takes no features, `input` cannot be used, or a folder holds something else.
    """
    use_threads(options.threads)
    target = Path(options.output_dir)
    if options.document is not None:
        questions = {target: text_of(options.document)[1]}
    elif options.question is not None:
        questions = {target: options.question}
    else:
        records = read_records(options.input)
        questions = {target / folder_name(record["id"]): record["question"] for record in records}
    directory = saved_directory(options.model)
    base = saved_config(directory).base_model_name_or_path
    of_model = manifest("export", options.loading_settings(), model=options.model, base=base)
    asked: dict[Path, Any] = {target: list(questions.values())} if options.mean else questions
    settings = of_model.settings | ({} if options.rank is None else {"rank": options.rank})
    folders = {folder: replace(of_model, settings=settings | {"of": of}) for folder, of in asked.items()}
    with locked(target):
        waiting = []
        for folder, made_by in folders.items():
            refuse_inputs(folder, made_by)
            remove_leftovers(folder)
            if options.overwrite or not is_finished(folder, made_by):
                waiting.append(folder)
        if len(waiting) < len(folders):
            print(f"{target}: {len(folders) - len(waiting)} adapters there already, of the same.", file=sys.stderr)
        if waiting:
            model = AwakeningModel.from_pretrained(directory, **options.loading_arguments())
            for folder, given in _adapter_inputs(model, asked, waiting, options).items():
                lora = to_lora(model.reader, **given, rank=options.rank)
                replaced = replacing(folder) if options.overwrite else nullcontext()
                with replaced, new_directory(folder, folders[folder]) as partial:
                    save_lora(partial, *lora)
    return list(folders)


def folder_name(identifier: str) -> str:
    """A folder's name for a record's id: unique, and never a path to another place."""
    name = quote(identifier, safe="")
    if not name.strip("."):
        # One dot names the folder itself, and two dots the one above it.
        return name.replace(".", "%2E")
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 33]}-{sha256(identifier.encode()).hexdigest()[:32]}"


def _adapter_inputs(
    model: AwakeningModel, asked: dict[Path, Any], waiting: list[Path], options: ExportOptions
) -> dict[Path, dict[str, Any]]:
    """The input of each folder's adapter, by its name in `to_lora`."""
    if model.document_encoder is not None and model.question_encoder is not None:
        raise InputError(f"{options.model}: its adapter is made from question and document, which no one LoRA has.")
    if options.document is not None:
        return {folder: {"memory": model.memorize([asked[folder]])} for folder in waiting}
    if model.document_encoder is not None:
        raise InputError(f"{options.model}: its adapter is made from documents: name one as document.")
    if model.question_encoder is None:
        raise InputError(f"{options.model}: its reader has no hypernetwork, so no question has an adapter to export.")
    questions = asked[waiting[0]] if options.mean else [asked[folder] for folder in waiting]
    contexts = model.write_contexts(questions) if model.config.features_read_context else None
    features = model.encode_features(questions, contexts)
    if options.mean:
        features = features.mean(dim=0, keepdim=True)
    return {folder: {"features": vector} for folder, vector in zip(waiting, features, strict=True)}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    (options,) = parse_arguments("export", (ExportOptions,), argv)
    folders = export(options)
    if options.json:
        print_json({"adapters": [str(folder) for folder in folders]})
        return
    written = str(folders[0]) if len(folders) == 1 else f"{len(folders)} adapters in {options.output_dir}"
    plain_console().print(f"{written}: load with peft.PeftModel.from_pretrained(base_model, folder)")


if __name__ == "__main__":
    sys.exit(run_command("export", lambda: main(sys.argv[1:])))
