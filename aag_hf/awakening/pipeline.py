"""A question in; its answer, context and timings out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aag_hf.awakening.model import AwakeningModel


class AwakeningPipeline:
    """Answers one question or many with an [`AwakeningModel`].

    Args:
        model: The model, or the directory or Hub id of one.
        **kwargs: Passed on to [`AwakeningModel.from_pretrained`].

    Example:

    ```python
    ask = AwakeningPipeline("runs/quickstart/aag")
    ask("What is the capital of Fiji?")
    # {"question": …, "answer": "Suva", "context": "The capital of Fiji is …", "seconds": {"context": …, …}}
    ```
    """

    def __init__(self, model: AwakeningModel | str | Path, **kwargs: Any):
        self.model = model if isinstance(model, AwakeningModel) else AwakeningModel.from_pretrained(model, **kwargs)

    def __call__(self, questions: str | Sequence[str], **generation_options: Any) -> Any:
        """Answer; `generation_options` as in [`AwakeningModel.generate`].

        Returns:
            A dictionary with `question`, `answer`, `context` and `seconds` (a question's share of each stage), or a
            list of them for a list of questions.
        """
        asked = [questions] if isinstance(questions, str) else list(questions)
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
