"""A pipeline from questions to answers, with their contexts and timings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aag_hf.awakening.documents import text_of
from aag_hf.awakening.model import AwakeningModel
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
    # {"question": …, "answer": …, "context": …, "seconds": {"memory": …, "answer": …}}

    ask.read("The capital of Nuvaria is Brel.")
    ask("What is the capital of Nuvaria?")["answer"]
    ```
    """

    def __init__(self, model: AwakeningModel | str | Path, **kwargs: Any):
        self.model = model if isinstance(model, AwakeningModel) else AwakeningModel.from_pretrained(model, **kwargs)
        self.memory: DocumentMemory | None = None

    def read(self, document: str | Path) -> DocumentMemory:
        """Read a text, answer from it from now on, and return its memory. The model must read documents.

        Args:
            document: The text, or the path of a file that holds it.

        Raises:
            InputError: The file or the text cannot be read, or the model's adapter is not made from documents.
        """
        name, text = text_of(document)
        self.memory = self.model.memorize([text], [name])
        return self.memory

    def __call__(self, questions: str | Sequence[str], **generation_options: Any) -> Any:
        """Answer questions, from the text read last unless `memory` or `documents` are given.

        Args:
            questions: One question or several.
            **generation_options: As in [`AwakeningModel.generate`].

        Returns:
            A dictionary with `question`, `answer`, `context` and `seconds` (the time of each stage per question). For a
            list of questions, a list of them.
        """
        asked = [questions] if isinstance(questions, str) else list(questions)
        if not generation_options.keys() & {"memory", "documents"} and self.memory is not None:
            generation_options["memory"] = self.memory
        output = self.model.generate(asked, **generation_options)
        results = [
            {
                "question": question,
                "answer": answer,
                "context": output.contexts[i] if output.contexts is not None else None,
                "seconds": {stage: total / len(asked) for stage, total in output.seconds.items()},
            }
            for i, (question, answer) in enumerate(zip(asked, output.answers))
        ]
        return results[0] if isinstance(questions, str) else results
