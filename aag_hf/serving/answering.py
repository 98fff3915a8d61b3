"""What a server asks of a saved model: answers to questions, and memories of documents."""

import sys
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from aag_hf.awakening import AwakeningModel
from aag_hf.awakening.answer_scores import end_tokens
from aag_hf.awakening.choosing import relevance_of
from aag_hf.awakening.decoding import first_line
from aag_hf.collators import ReaderPrompt
from aag_hf.collators.prompts import encode_marked_prompt
from aag_hf.errors import InputError
from aag_hf.hyperlora import DocumentMemory
from aag_hf.serving.store import document_id

# What a decoder gives for bytes that are not a whole character yet.
UNFINISHED = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Answer:
    """An answer, and what an API tells about it.

    Attributes:
        text: The answer.
        ended: Whether the reader ended it, and not the limit of its tokens.
        prompt_tokens: Tokens that the reader read.
        tokens: Tokens that it wrote.
        score: The mean log-probability of the answer's tokens; ``None`` where another server answers.
        relevance: The share of the question's words that its document holds; ``None`` without a document.
    """

    text: str
    ended: bool
    prompt_tokens: int
    tokens: int
    score: float | None = None
    relevance: float | None = None


@dataclass(eq=False)
class Question:
    """A question to answer.

    Args:
        text: The question.
        memory: The memory of its document, one row; ``None`` for an adapter that is made without.
        max_tokens: The most tokens of the answer.
        on_text: Called with each further piece of the answer, in the thread that answers. Together they are the answer.
    """

    text: str
    memory: DocumentMemory | None
    max_tokens: int
    on_text: Callable[[str], None] | None = None
    result: Future[Answer] = field(default_factory=Future)
    told: str = field(default="", init=False)

    @property
    def kind(self) -> Hashable:
        """Questions of one kind are decoded together."""
        return "question", self.memory is not None, self.max_tokens

    def tell(self, text: str) -> None:
        """Hand on what `text`, the answer so far, has more than before."""
        # An answer that is made again, after its batch failed, is told from where it was.
        if self.on_text is not None and len(text) > len(self.told) and text.startswith(self.told):
            new, self.told = text[len(self.told) :], text
            self.on_text(new)


@dataclass(eq=False)
class Document:
    """A document to read. Each is read by itself: one may be a thousand times as long as the next."""

    text: str
    result: Future[DocumentMemory] = field(default_factory=Future)

    @property
    def kind(self) -> Hashable:
        """No two documents are of one kind."""
        return id(self)


class Answerer:
    """Does the work of a server with a model.

    Args:
        model: A saved model. It must answer from a question, and a document where it reads one, alone.

    Raises:
        InputError: It reads passages or contexts that no request has.
    """

    def __init__(self, model: AwakeningModel):
        config = model.config
        if config.fid or (config.context != "none" and model.generator is None):
            raise InputError(f"this reader reads {config.context} beside each question, which a server is not given.")
        self.model = model
        self._prompt = ReaderPrompt.of(config)
        self.ends = end_tokens(model.reader, model.tokenizer)

    @property
    def reads_documents(self) -> bool:
        """Whether a question can name a document."""
        return self.model.document_encoder is not None

    @property
    def needs_documents(self) -> bool:
        """Whether a question must name one."""
        writes_its_own = self.model.config.adapter_context == "generated" and self.model.generator is not None
        return self.reads_documents and not writes_its_own

    @property
    def most_tokens(self) -> int:
        """The most tokens of an answer."""
        return self.model.config.answer_max_length

    def work(self, jobs: Sequence[Any]) -> list[Any]:
        """Answer questions, or read a document; for a [`~aag_hf.serving.batching.Batcher`]."""
        if isinstance(jobs[0], Document):
            named = [(document.text, document_id(document.text)) for document in jobs]
            return [self.model.memorize([text], [identifier]).to("cpu") for text, identifier in named]
        results: dict[int, Any] = {}
        for number, question in enumerate(jobs):
            try:
                self.prompt_tokens(question.text)
            except InputError as error:
                results[number] = error
        asked = [number for number in range(len(jobs)) if number not in results]
        if asked:
            results |= zip(asked, self._answer([jobs[number] for number in asked]), strict=True)
        return [results[number] for number in range(len(jobs))]

    def _answer(self, questions: Sequence[Question]) -> list[Answer]:
        tokens: list[list[int]] = [[] for _ in questions]
        ended: set[int] = set()

        def on_tokens(rows: Sequence[int], step: Sequence[int]) -> None:
            for row, token in zip(rows, step):
                if row in ended:
                    continue
                tokens[row].append(token)
                text = self.model.tokenizer.decode(tokens[row], skip_special_tokens=True).lstrip()
                if token in self.ends or "\n" in text:
                    ended.add(row)
                questions[row].tell(first_line(text).rstrip(UNFINISHED))

        memories = [question.memory for question in questions if question.memory is not None]
        output = self.model.generate(
            [question.text for question in questions],
            memory=DocumentMemory.cat(memories) if memories else None,
            batch_size=len(questions),
            max_new_tokens=questions[0].max_tokens,
            on_tokens=on_tokens,
        )
        contexts: Sequence[str | None] = output.contexts or [None] * len(questions)
        scores: Sequence[float | None] = output.scores or [None] * len(questions)
        answers = []
        for row, (question, text, context) in enumerate(zip(questions, output.answers, contexts)):
            question.tell(text)
            read = self.prompt_tokens(question.text, context)
            relevance = self.relevance(question)
            answers.append(Answer(text, row in ended, len(read), len(tokens[row]), scores[row], relevance))
        return answers

    def relevance(self, question: Question) -> float | None:
        """How much of a question's words its document holds; ``None`` without a document."""
        if question.memory is None or self.model.document_encoder is None:
            return None
        return relevance_of(self.model.document_encoder, [question.text], question.memory)[0]

    def prompt_tokens(self, question: str, context: str | None = None) -> list[int]:
        """The tokens of a prompt.

        Raises:
            InputError: There are more than the reader reads, or they would take long to count.
        """
        most = self._prompt.prompt_max_length
        # No token is longer than this many characters on average.
        if len(question) > 32 * most:
            raise InputError(f"the question has {len(question):,} characters; the reader reads {most} tokens.")
        template = self._prompt.prompt if context is None else self._prompt.context_prompt
        ids = encode_marked_prompt(
            self.model.tokenizer,
            template,
            {"id": "question", "question": question},
            context,
            # A context is cut until it fits; without one nothing is.
            max_length=sys.maxsize if context is None else most,
            chat=self._prompt.chat,
        )[0]
        if len(ids) > most:
            raise InputError(f"the question takes {len(ids):,} tokens with its prompt; the reader reads {most}.")
        return ids
