"""A question in; its answer, context and timings out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aag_hf.awakening.model import AwakeningModel
from aag_hf.hyperlora import AdapterCache


class AwakeningPipeline:
    """Answers one question or many with an [`AwakeningModel`].

    Args:
        model: The model, or the directory or Hub id of one.
        adapter_cache_bytes: Keep that many bytes of adapters for questions that come again. It pays where they do:
            making an adapter takes a few hundredths of the time an answer takes, and keeping a new one adds to that.
        **kwargs: Passed on to [`AwakeningModel.from_pretrained`].

    Example:

    ```python
    ask = AwakeningPipeline("runs/quickstart/aag")
    ask("What is the capital of Fiji?")
    # {"question": …, "answer": "Suva", "context": "The capital of Fiji is …", "seconds": {"context": …, …}}
    ```
    """

    def __init__(self, model: AwakeningModel | str | Path, adapter_cache_bytes: int = 0, **kwargs: Any):
        self.model = model if isinstance(model, AwakeningModel) else AwakeningModel.from_pretrained(model, **kwargs)
        self.adapter_cache = AdapterCache(adapter_cache_bytes) if adapter_cache_bytes else None

    def __call__(self, questions: str | Sequence[str], **generation_options: Any) -> Any:
        """Answer; `generation_options` as in [`AwakeningModel.generate`].

        Returns:
            A dictionary with `question`, `answer`, `context` and `seconds` (a question's share of each stage), or a
            list of them for a list of questions.
        """
        asked = [questions] if isinstance(questions, str) else list(questions)
        if self.adapter_cache is not None and self.model.question_encoder is not None:
            generation_options = {"adapter_cache": self.adapter_cache, **generation_options}
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
