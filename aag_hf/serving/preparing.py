"""What vLLM needs to answer a question: its adapter as a plain LoRA, and its prompt as tokens."""

from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from aag_hf.awakening.loading import is_encoder_decoder
from aag_hf.errors import InputError
from aag_hf.hyperlora import to_lora
from aag_hf.serving.adapter_folder import AdapterFolder
from aag_hf.serving.adapter_names import adapter_name
from aag_hf.serving.answering import Answerer, Document, Question


@dataclass(frozen=True)
class Prepared:
    """A question that vLLM can be asked.

    Attributes:
        prompt: The tokens of its prompt.
        left: The names of adapters that had to leave for its own.
    """

    prompt: list[int]
    left: list[str]


@dataclass(eq=False)
class Preparation:
    """A question to prepare.

    Args:
        question: The question.
        name: Its adapter's.
    """

    question: Question
    name: str
    result: Future[Prepared] = field(default_factory=Future)

    @property
    def kind(self) -> Hashable:
        """All questions are prepared alike."""
        return "preparation"


class Preparer:
    """Makes adapters and prompts with a saved model, for vLLM to answer with.

    Args:
        answerer: Of the model.
        folder: Where the adapters go.
        reader: A digest of the saved model.

    Raises:
        InputError: The model's adapters are not LoRAs of one question or one document, or vLLM does not run it.
    """

    def __init__(self, answerer: Answerer, folder: AdapterFolder, reader: str):
        model = answerer.model
        if is_encoder_decoder(model.reader):
            raise InputError("vLLM runs no encoder-decoder models: leave vllm out.")
        if model.config.context != "none":
            raise InputError(f"this reader reads {model.config.context} in its prompt: leave vllm out.")
        if (model.question_encoder is None) == (model.document_encoder is None):
            what = "no hypernetwork" if model.question_encoder is None else "adapters from question and document"
            raise InputError(f"this reader has {what}; vLLM takes the LoRA of one of them: leave vllm out.")
        self.answerer, self.folder, self.reader = answerer, folder, reader

    def name(self, question: Question) -> str:
        """The name of a question's adapter.

        Raises:
            InputError: It names no document, and the adapter is made from one.
        """
        if question.memory is not None:
            return adapter_name("document", question.memory.ids[0], self.reader)
        if self.answerer.reads_documents:
            raise InputError("document: this model answers from a document: name one by its id.")
        return adapter_name("question", question.text, self.reader)

    def work(self, jobs: Sequence[Any]) -> list[Any]:
        """Prepare questions, or read a document; for a [`~aag_hf.serving.batching.Batcher`]."""
        if isinstance(jobs[0], Document):
            return self.answerer.work(jobs)
        results: list[Any] = []
        for job in jobs:
            try:
                results.append(Prepared(self.answerer.prompt_tokens(job.question.text), []))
            except InputError as error:
                results.append(error)
        sound = [job for job, result in zip(jobs, results) if isinstance(result, Prepared)]
        missing = {job.name: job.question for job in sound if not self.folder.holds(job.name)}
        left = self._make(missing)
        if sound:
            results[jobs.index(sound[0])].left.extend(left)
        return results

    def _make(self, missing: dict[str, Question]) -> list[str]:
        model, left = self.answerer.model, []
        questions = list(missing.values())
        inputs: list[dict[str, Any]] = [
            {"memory": q.memory.to(model.device)} for q in questions if q.memory is not None
        ]
        if questions and model.question_encoder is not None:
            inputs = [{"features": row} for row in model.encode_features([question.text for question in questions])]
        for name, given in zip(missing, inputs, strict=True):
            left += self.folder.add(name, *to_lora(model.reader, **given))
        return left
