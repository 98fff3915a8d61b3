"""A pipeline from questions to answers, with their contexts and timings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aag_hf.awakening.choosing import memories_for, relevance_of
from aag_hf.awakening.documents import named_passages, text_of
from aag_hf.awakening.model import AwakeningModel
from aag_hf.errors import InputError
from aag_hf.hyperlora import DocumentMemory


class AwakeningPipeline:
    """Answers one question or many with an [`AwakeningModel`].

    Args:
        model: The model, or the directory or Hub id of one.
        **kwargs: Passed on to [`AwakeningModel.from_pretrained`].

    Example:

    ```python
    ask = AwakeningPipeline("runs/quickstart/model")
    ask("What is the capital of Fiji?")
    # {"question": …, "answer": …, "score": …, "context": …, "seconds": {"memory": …, "answer": …}}

    ask.read("The capital of Nuvaria is Brel.")
    ask("What is the capital of Nuvaria?")["answer"]
    ```
    """

    def __init__(self, model: AwakeningModel | str | Path, **kwargs: Any):
        self.model = model if isinstance(model, AwakeningModel) else AwakeningModel.from_pretrained(model, **kwargs)
        self.memory: DocumentMemory | None = None

    def read(self, *documents: str | Path, by_passage: bool = False) -> DocumentMemory:
        """Read texts, answer from them from now on, and return their memories. The model must read documents.

        Of several texts, each question is answered from the one that its words fit best
        ([`~aag_hf.awakening.memories_for`]).

        Args:
            *documents: Texts, or the paths of files that hold them.
            by_passage: Give each passage of a long text a memory of its own, so that a question is answered from the
                passage that its words fit best ([`~aag_hf.awakening.documents.in_passages`]).

        Returns:
            One row per text, or per passage. Rows are called after their text, passages with their number.

        Raises:
            InputError: There is no text, a file or a text cannot be read, or the model's adapter is not made from
                documents.
        """
        if not documents:
            raise InputError("there is nothing to read: pass a text, or the path of one.")
        named = [text_of(document) for document in documents]
        if by_passage and self.model.document_encoder is not None:
            # Its passages may be short enough, and yet be more than anybody waits for.
            called = [name or f"document {place}" for place, (name, _) in enumerate(named)]
            self.model.document_encoder.check([text for _, text in named], called)
            named = [passage for name, text in named for passage in named_passages(name, text)]
        names, texts = zip(*named)
        self.memory = self.model.memorize(texts, names)
        return self.memory

    def __call__(
        self,
        questions: str | Sequence[str],
        min_score: float | None = None,
        min_relevance: float = 0.0,
        **generation_options: Any,
    ) -> Any:
        """Answer questions, from what was read last unless `memory` or `documents` are given.

        A blank question in a list has the answer ``None``.

        Args:
            questions: One question or several.
            min_score: Answers with a lower score become ``None``.
            min_relevance: Answers from a text of less relevance, in [0, 1], become ``None``.
            **generation_options: As in [`AwakeningModel.generate`].

        Returns:
            A dictionary with `question`, `answer`, `score` (the mean log-probability of the answer's tokens; ``None``
            for beams), `context` and `seconds` (of each stage, per question). If texts were read, also `document`, the
            name of the text that the answer is from (``None`` for none), and its `relevance`
            ([`~aag_hf.questions.relevance.relevance`]). For a list of questions, a list of them.

        Raises:
            InputError: The only question is blank, `min_relevance` is out of range, or an input of the model is wrong.
        """
        if not 0 <= min_relevance <= 1:
            raise InputError(f"min_relevance is {min_relevance}: expected a number from 0 to 1.")
        asked = [questions] if isinstance(questions, str) else list(questions)
        answered = [question for question in asked if question.strip()]
        if isinstance(questions, str) and not answered:
            raise InputError("the question is blank: ask something.")
        read: list[dict[str, Any]] = [{}] * len(asked)
        if not generation_options.keys() & {"memory", "documents"} and self.memory is not None:
            generation_options["memory"] = memories_for(asked, self.memory)
            read = self._told(asked, generation_options["memory"])
        waiting = iter(self._answer(answered, **_of_answered(asked, generation_options)))
        nothing: dict[str, Any] = {"answer": None, "score": None, "context": None, "seconds": {}}
        results = [
            (next(waiting) | about) if question.strip() else {"question": question, **nothing}
            for question, about in zip(asked, read)
        ]
        for result in results:
            if _is_below(result["score"], min_score) or _is_below(result.get("relevance"), min_relevance):
                result["answer"] = None
        return results[0] if isinstance(questions, str) else results

    def _told(self, questions: list[str], memory: DocumentMemory) -> list[dict[str, Any]]:
        """What is told of the document that each question is answered from; an empty memory is of no document."""
        encoder = self.model.document_encoder
        relevance = [None] * len(questions) if encoder is None else relevance_of(encoder, questions, memory)
        is_read = memory.tensor.flatten(1).any(1).tolist()
        names = [name if used else None for name, used in zip(memory.ids, is_read)]
        return [{"document": name, "relevance": number} for name, number in zip(names, relevance)]

    def _answer(self, questions: list[str], **generation_options: Any) -> list[dict[str, Any]]:
        if not questions:
            return []
        output = self.model.generate(questions, **generation_options)
        return [
            {
                "question": question,
                "answer": answer,
                "score": None if output.scores is None else output.scores[i],
                "context": output.contexts[i] if output.contexts is not None else None,
                "seconds": {stage: total / len(questions) for stage, total in output.seconds.items()},
            }
            for i, (question, answer) in enumerate(zip(questions, output.answers))
        ]


def _is_below(number: float | None, least: float | None) -> bool:
    return number is not None and least is not None and number < least


def _of_answered(asked: Sequence[str], options: dict[str, Any]) -> dict[str, Any]:
    """The options, without what belongs to blank questions."""
    kept = [place for place, question in enumerate(asked) if question.strip()]
    if len(kept) == len(asked):
        return options
    chosen = dict(options)
    for name in ("contexts", "passages", "documents"):
        given = chosen.get(name)
        if given is not None and not isinstance(given, str) and len(given) == len(asked):
            chosen[name] = [given[place] for place in kept]
    for name in ("features", "memory"):
        if chosen.get(name) is not None and len(chosen[name]) == len(asked):
            chosen[name] = chosen[name][kept]
    return chosen
