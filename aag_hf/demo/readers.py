"""What the page asks: the model, its base, and a static reader beside it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel

from aag_hf.awakening import AwakeningModel, AwakeningOutput
from aag_hf.awakening.choosing import relevance_of
from aag_hf.awakening.loading import load_language_model, saved_config, saved_directory
from aag_hf.errors import InputError
from aag_hf.hyperlora import DocumentMemory

# A question is a line or two; what is pasted by mistake would only be cut to the prompt's length.
LONGEST_QUESTION = 2000
OURS = "This model"
BASE = "Base model"
BASE_WITH_TEXT = "Base model, text in the prompt"
STATIC = "Static reader"

Result = TypeVar("Result")


@dataclass(frozen=True)
class Reading:
    """What a reader made of a question.

    Attributes:
        answer: Its answer.
        read: The text that it read beside the question, or that its adapter was made from; ``None`` without one.
        written: Whether that text comes from its context generator.
        prompt_tokens: Tokens of the prompt.
        seconds: From question to answer, reading the text included.
        features: ``(1, feature_dim)``, if its adapter is made from the question.
        memory: One row, if its adapter is made from a document.
        score: The mean log-probability of the answer's tokens.
        relevance: The share of the question's words in the document that its adapter is made from.
    """

    answer: str
    read: str | None
    written: bool
    prompt_tokens: int
    seconds: float
    features: torch.Tensor | None = None
    memory: DocumentMemory | None = None
    score: float | None = None
    relevance: float | None = None


class Readers:
    """The readers of the page. Calls may come from any thread; the models see one at a time, in order of arrival.

    Args:
        model: The model that the page is about.
        base: Its base model, without adapters.
        static: A reader to compare it with.
        name: What the page calls the model.
    """

    def __init__(
        self,
        model: AwakeningModel,
        base: PreTrainedModel | None = None,
        static: AwakeningModel | None = None,
        name: str = "",
    ):
        self.model = model
        self.name = name
        self.static = static
        self.base = None if base is None else AwakeningModel(_plain(model), base, model.tokenizer).eval()
        # Tokenizers keep settings of a call, and decoding hooks into the model: neither bears two threads.
        self._one_at_a_time = ThreadPoolExecutor(1, "readers")

    @classmethod
    def from_pretrained(
        cls, model: str, static_model: str | None = None, device: torch.device | str = "cpu", **kwargs: Any
    ) -> Readers:
        """Load saved models; one base model serves all that were trained on it.

        Args:
            model: Folder or Hub id of the model.
            static_model: The same of the static reader.
            device: Where to compute.
            **kwargs: Passed on to `from_pretrained` of the base model.

        Raises:
            InputError: One cannot be loaded.
        """
        folders = {name: saved_directory(name) for name in (model, static_model) if name is not None}
        config = saved_config(folders[model])
        if config.base_model_name_or_path is None:
            raise InputError(f"{folders[model]}: its config.json names no base_model_name_or_path to load.")
        base = load_language_model(config.base_model_name_or_path, config.fid, **kwargs)

        def load(folder: Path) -> AwakeningModel:
            other = saved_config(folder)
            same = (other.base_model_name_or_path, other.fid) == (config.base_model_name_or_path, config.fid)
            return AwakeningModel.from_pretrained(folder, base_model=base if same else None, **kwargs).to(device)

        static = None if static_model is None else load(folders[static_model])
        return cls(load(folders[model]), base.to(device), static, model)

    @property
    def reads_documents(self) -> bool:
        """Whether the model's adapter is made from documents."""
        return self.model.document_encoder is not None

    @property
    def takes_text(self) -> bool:
        """Whether the model can be given a text with a question."""
        return self.reads_documents or self.model.config.context != "none"

    def run(self, function: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        """Call a function that uses the models once those before it are done."""
        return self._one_at_a_time.submit(function, *args, **kwargs).result()

    def ask(self, question: str, text: str = "") -> dict[str, Reading | str]:
        """Every reader's reading of a question, by its name; of one that cannot answer, the reason.

        Args:
            question: The question.
            text: What to answer from. If it is blank, the context generator writes one, where there is a generator.

        Raises:
            InputError: There is no question, or the model lacks a text to answer from.
        """
        question, text = checked_question(question), text.strip()
        readings: dict[str, Reading | str] = {}
        if self.base is not None:
            readings[BASE] = self.run(read, self.base, question)
            if text:
                readings[BASE_WITH_TEXT] = self.run(read, self.base, question, text, in_prompt=True)
        if self.static is not None:
            try:
                readings[STATIC] = self.run(read, self.static, question, text)
            except InputError as error:
                readings[STATIC] = str(error)
        readings[OURS] = self.run(read, self.model, question, text)
        return readings


def read(model: AwakeningModel, question: str, text: str = "", in_prompt: bool = False) -> Reading:
    """Let a reader answer.

    Args:
        model: The reader.
        question: The question.
        text: A text, which is read in the way of the reader: in its prompt, passage by passage, or into its adapter. A
            reader of the question alone reads none.
        in_prompt: Read it in the prompt in any case.

    Raises:
        InputError: The reader needs a text, and has none and no generator that writes one.
    """
    start = time.perf_counter()
    config = model.config
    memory = document = contexts = passages = None
    if model.document_encoder is not None:
        document = text or (model.write_contexts([question])[0] if config.adapter_context == "generated" else "")
        if not document.strip():
            raise InputError("this reader's adapter is made from a document: give it a text.")
        memory = model.memorize([document])
    if config.fid:
        if not text:
            raise InputError("this reader reads passages: give it a text, with an empty line between passages.")
        passages = [[{"title": "", "text": passage} for passage in text.split("\n\n") if passage.strip()]]
    elif text and (in_prompt or config.context != "none"):
        contexts = [text]
    output = model.generate([question], contexts, passages=passages, memory=memory)
    beside = document if output.contexts is None else output.contexts[0]
    return _reading(model, question, output, start, memory, beside, written=beside is not None and not text)


def read_from(model: AwakeningModel, question: str, memory: DocumentMemory) -> Reading:
    """Let a reader answer from what it remembers.

    Args:
        model: A reader whose adapter is made from documents.
        question: The question.
        memory: One row.

    Raises:
        InputError: The reader also needs a context in its prompt, and has no generator that writes one.
    """
    start = time.perf_counter()
    output = model.generate([question], memory=memory)
    beside = None if output.contexts is None else output.contexts[0]
    return _reading(model, question, output, start, memory, beside, written=beside is not None)


def _reading(
    model: AwakeningModel,
    question: str,
    output: AwakeningOutput,
    start: float,
    memory: DocumentMemory | None,
    beside: str | None,
    written: bool,
) -> Reading:
    seconds = time.perf_counter() - start
    score = None if output.scores is None else output.scores[0]
    relevance = None
    if memory is not None and model.document_encoder is not None:
        (relevance,) = relevance_of(model.document_encoder, [question], memory)
    return Reading(
        output.answers[0], beside, written, output.input_tokens, seconds, output.features, memory, score, relevance
    )


def checked_question(question: str) -> str:
    """The question without space around it.

    Raises:
        InputError: It is blank, or too long for a question.
    """
    question = question.strip()
    if not question:
        raise InputError("there is no question: write one.")
    if len(question) > LONGEST_QUESTION:
        raise InputError(f"the question has {len(question):,} characters: {LONGEST_QUESTION:,} are the most.")
    return question


def _plain(model: AwakeningModel) -> Any:
    """The configuration of a reader that is asked in the same words, from nothing but the question."""
    config = copy.deepcopy(model.config)
    config.context = config.adapter_context = "none"
    config.fid = config.features_read_context = False
    return config
