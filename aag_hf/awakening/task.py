"""The task ``"awakening-qa"`` of transformers' `pipeline`. The model's code is imported on first use."""

from collections.abc import Iterable, Iterator
from itertools import islice
from types import NoneType
from typing import TYPE_CHECKING, Any

from transformers import AutoConfig, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from aag_hf.awakening.configuration import AwakeningConfig
from aag_hf.errors import InputError

if TYPE_CHECKING:
    from aag_hf.awakening.model import AwakeningModel

TASK = "awakening-qa"
# What the model takes of each question, and the field of an input that holds it.
_OF_EACH = {"contexts": "context", "passages": "ctxs", "documents": "document"}

Asked = list[dict[str, Any]]


class AwakeningQAPipeline(Pipeline):
    """Answers questions with an [`~aag_hf.AwakeningModel`], as transformers' pipelines do: task ``"awakening-qa"``.

    Inputs are questions, or dictionaries with a `question` and its `context`, its `document` for a reader of documents,
    or its `ctxs` for a Fusion-in-Decoder reader. One input gives one dictionary with `question`, `answer`, `score`,
    `context` and `seconds`. A list gives a list, and a data set or generator gives an iterator. `batch_size` questions
    are answered at once. Other options go to the reader's `generate`.

    Raises:
        InputError: An input is neither text nor has a `question`, only some inputs of a batch have a context, or
            something of each question is given beside the questions instead of with them.

    Example:

    ```python
    import aag_hf
    from transformers import pipeline

    ask = pipeline("awakening-qa", model="runs/quickstart/model")
    ask(["What is the capital of Fiji?", "Where is Suva?"], batch_size=2)
    ```
    """

    _load_tokenizer = _load_processor = _load_image_processor = _load_feature_extractor = _load_video_processor = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base={self.model.config.base_model_name_or_path!r}, device={self.device})"

    def _sanitize_parameters(self, **generation_options: Any) -> tuple[dict, dict, dict]:
        for name, field in _OF_EACH.items():
            if not isinstance(generation_options.get(name), (str, NoneType)):
                raise InputError(f"{name}: questions come in batches: give each as {{'question': …, {field!r}: …}}.")
        for name in ("memory", "features"):
            if generation_options.get(name) is not None and len(generation_options[name]) != 1:
                raise InputError(f"{name}: questions come in batches: give one row for all, or use AwakeningPipeline.")
        return {}, generation_options, {}

    def preprocess(self, inputs: str | dict[str, Any]) -> Asked:
        """One question, as a batch."""
        asked = {"question": inputs} if isinstance(inputs, str) else inputs
        if not isinstance(asked, dict) or not isinstance(asked.get("question"), str):
            raise InputError(f"expected a question, or a dictionary with one, found {inputs!r:.80}.")
        return [asked]

    def _forward(self, asked: Asked, **generation_options: Any) -> list[dict[str, Any]]:
        read: dict[str, Any] = {
            name: [one[field] for one in asked] for name, field in _OF_EACH.items() if _all_or_none(asked, field)
        }
        questions = [one["question"] for one in asked]
        from aag_hf.awakening.pipeline import AwakeningPipeline

        return AwakeningPipeline(self.model)(questions, **read, batch_size=len(asked), **generation_options)

    def postprocess(self, answered: list[dict[str, Any]]) -> dict[str, Any]:
        """The only answer."""
        return answered[0]

    def get_iterator(
        self,
        inputs: Iterable[Any],
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Iterator[dict[str, Any]]:
        """Answers in the order of `inputs`, which are read in batches. Text needs no worker processes."""
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}: expected at least 1.")
        waiting = iter(inputs)
        while batch := list(islice(waiting, batch_size)):
            asked = [one for item in batch for one in self.preprocess(item, **preprocess_params)]
            yield from self.forward(asked, **forward_params)


def _all_or_none(asked: Asked, field: str) -> bool:
    having = [one for one in asked if one.get(field) is not None]
    if having and len(having) < len(asked):
        raise InputError(
            f"{len(having)} of {len(asked)} questions have {field}: give it with all of them, or with none."
        )
    return bool(having)


class SavedAwakeningModel:
    """Loads a name or folder for `pipeline`."""

    @classmethod
    def from_pretrained(cls, name: str, **kwargs: Any) -> "AwakeningModel":
        """Load an [`~aag_hf.AwakeningModel`]. Remote code stays off unless it is asked for."""
        from aag_hf.awakening.model import AwakeningModel

        kwargs.pop("_from_pipeline")
        return AwakeningModel.from_pretrained(name, **{key: v for key, v in kwargs.items() if v is not None})


AutoConfig.register(AwakeningConfig.model_type, AwakeningConfig)
PIPELINE_REGISTRY.register_pipeline(TASK, AwakeningQAPipeline, pt_model=SavedAwakeningModel, type="text")
