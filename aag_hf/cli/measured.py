"""What ``aag evaluate`` measures: saved models and, as baselines, base models that nobody trained."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any, cast, get_args

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from aag_hf.awakening import AwakeningConfig, AwakeningModel
from aag_hf.awakening.loading import load_language_model, load_tokenizer, saved_config, saved_directory
from aag_hf.cli.options import LoadingOptions, PromptOptions
from aag_hf.data.contexts import ContextSource, context_of
from aag_hf.data.records import read_records
from aag_hf.errors import InputError
from aag_hf.evaluation.controls import OF_DOCUMENTS, OF_FEATURES, Control
from aag_hf.evaluation.evaluator import given_contexts
from aag_hf.evaluation.shots import choose_shots

Records = Sequence[dict[str, Any]]


@dataclass
class BaseOptions(PromptOptions, LoadingOptions):
    """A base model to measure without training, and what it reads."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "A base model to measure without training: a directory, a Hub id, or 'embedded'."},
    )
    context: list[str] = field(
        default_factory=lambda: ["none"],
        metadata={
            "help": f"What the base model reads, one row per choice: some of {', '.join(get_args(ContextSource))}."
        },
    )
    passages: int = field(default=1, metadata={"help": "How many passages the context 'passages' has."})
    shots: list[int] = field(
        default_factory=lambda: [0],
        metadata={"help": "How many answered questions it reads first, one row per number."},
    )
    shots_file: str | None = field(
        default=None,
        metadata={"help": "Records to draw answered questions from, with `seed`; none of them is also asked."},
    )
    prompt_max_length: int = field(default=1024, metadata={"help": "The most tokens of its prompt, examples included."})
    answer_max_length: int = field(
        default=32, metadata={"help": "The most tokens of its answer, which ends at the first line."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for context in self.context:
            if context not in get_args(ContextSource):
                raise InputError(f"context must be one of {', '.join(get_args(ContextSource))}, got {context!r}.")
        if any(self.shots) and self.shots_file is None:
            raise InputError("shots are drawn from records: name them with shots_file, such as the training records.")


@dataclass(frozen=True)
class Reader:
    """A reader to measure.

    Args:
        name: The names of its rows begin with this.
        config: What it reads.
        load: Loads it.
        controls: The controls that concern this reader.
        writes_contexts: Whether it has a generator.
    """

    name: str
    config: AwakeningConfig
    load: Callable[[], AwakeningModel]
    controls: tuple[Control, ...] = ()
    writes_contexts: bool = False

    def check(self, records: Records) -> None:
        """Refuse records that lack what the reader reads.

        Raises:
            InputError: A record lacks it; the message names the record.
        """
        if self.config.context == "generated" and not self.writes_contexts:
            for record in records:
                context_of(record, "generated")
        else:
            given_contexts(self.config, records)
        document = self.config.adapter_context
        if document != "none" and not (document == "generated" and self.writes_contexts):
            for record in records:
                context_of(record, document, self.config.adapter_passages)


def named_inputs(inputs: Sequence[str]) -> dict[str, str]:
    """Paths by name. The name stands before ``=``, or it is the shortest end of the path that is unique.

    Args:
        inputs: ``FILE`` or ``NAME=FILE``.

    Raises:
        InputError: One has no path, or two have one name.
    """
    pairs = [("", text) if Path(text).exists() or "=" not in text else text.split("=", 1) for text in inputs]
    for text, (_, path) in zip(inputs, pairs):
        if not path:
            raise InputError(f"input is {text!r}: names no file: expected FILE or NAME=FILE.")
    own = short_names([path for _, path in pairs])
    names = [name or short for (name, _), short in zip(pairs, own)]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"input: two files are called {name!r}: name one of them, as in OTHER=FILE.")
    return {name: path for name, (_, path) in zip(names, pairs)}


def saved_readers(paths: Sequence[str], loading: dict[str, Any]) -> list[Reader]:
    """The saved models at `paths`, none of them loaded yet.

    Raises:
        InputError: One is no saved model.
    """
    readers = []
    for path, name in zip(paths, short_names(paths), strict=True):
        directory = saved_directory(path)
        readers.append(
            Reader(
                name,
                saved_config(directory),
                partial(AwakeningModel.from_pretrained, path, **loading),
                controls=_controls_of(directory),
                writes_contexts=(directory / "generator").is_dir(),
            )
        )
    return readers


def _controls_of(directory: Path) -> tuple[Control, ...]:
    of_features = OF_FEATURES if (directory / "question_encoder").is_dir() else ()
    of_documents = OF_DOCUMENTS if (directory / "document_encoder").is_dir() else ()
    return (*of_features, *of_documents, "off") if of_features or of_documents else ()


def base_readers(options: BaseOptions, asked: Records, seed: int) -> list[Reader]:
    """One reader of the base model per context and number of shots; the weights are loaded once.

    Args:
        options: If they name no base model, there are no readers.
        asked: All records that will be asked.
        seed: Seed of the draw of examples.

    Raises:
        InputError: There are not enough examples, or one lacks the context.
    """
    path = options.model_name_or_path
    if path is None:
        return []
    base = cache(partial(load_language_model, path, **options.loading_arguments()))
    tokenizer = load_tokenizer(path)
    pool: Records = []
    if options.shots_file is not None:
        pool = choose_shots(read_records(options.shots_file), max(options.shots), asked=asked, seed=seed)
    readers = []
    contexts = cast(list[ContextSource], options.context)
    for context, shots in product(dict.fromkeys(contexts), dict.fromkeys(options.shots)):
        config = _base_config(options, tokenizer, context, pool[:shots])
        load = partial(_load_base_reader, config, base, tokenizer)
        told = ["zero-shot" if shots == 0 else f"{shots}-shot", *([] if context == "none" else [context])]
        readers.append(Reader(", ".join([short_names([path])[0], *told]), config, load))
    return readers


def _load_base_reader(
    config: AwakeningConfig, base: Callable[[], PreTrainedModel], tokenizer: PreTrainedTokenizerBase
) -> AwakeningModel:
    return AwakeningModel(config, base(), tokenizer).eval()


def _base_config(
    options: BaseOptions, tokenizer: PreTrainedTokenizerBase, context: ContextSource, shots: Records
) -> AwakeningConfig:
    answered = [(record, context_of(record, context, options.passages)) for record in shots]
    name = options.model_name_or_path
    assert name is not None
    return AwakeningConfig(
        base_model_name_or_path=name,
        context=context,
        passages=options.passages,
        **options.prompts(tokenizer, options.is_chat(tokenizer, name), answered),
        prompt_max_length=options.prompt_max_length,
        answer_max_length=options.answer_max_length,
    )


def short_names(paths: Sequence[str]) -> list[str]:
    """The shortest ends of the paths that tell them apart.

    Raises:
        InputError: One is named twice.
    """
    parts = [Path(path).resolve().parts for path in paths]
    for path, own in zip(paths, parts):
        if parts.count(own) > 1:
            raise InputError(f"{path}: is named twice.")
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(own[-length:]) for own in parts]
        if len(set(names)) == len(names):
            return names
    return []
