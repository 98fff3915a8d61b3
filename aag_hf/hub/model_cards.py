"""Model cards, written from the content of a saved folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from aag_hf.errors import InputError
from aag_hf.hub.artefacts import describer_of
from aag_hf.hub.cards import NAMELESS, OURS, hub_name, read_json, replaceable_metadata, write_card

METRICS = {"exact_match": "EM", "f1": "F1", "best_subspan_em": "best sub-span EM"}
OUR_METADATA = ("library_name", "base_model_relation", "pipeline_tag", "tags", "datasets", "metrics", "model-index")
TEMPLATE = """\
---
{{ card_data }}
---

# {{ repository }}

{{ about.summary }}

```python
{{ about.usage }}
```
{% if auto_class %}
Without aag-hf, `{{ auto_class }}.from_pretrained("{{ repository }}", trust_remote_code=True)` runs the Python files of
this repository: read them first.
{% endif %}
## Training

{{ about.training }}
{% if about.recipe %}
<details><summary>Options of the run</summary>

| option | value |
|---|---|
{% for name, value in about.recipe.items() %}| `{{ name }}` | `{{ value }}` |
{% endfor %}
</details>
{% endif %}{% if results %}
## Results

{{ results }}

± is one standard error. Rows with shuffled features give each question the adapter of another question: the difference
is what the adapter draws from its question.
{% endif %}
## Limits

{{ about.limits }}

{{ ours }}
"""


def leave_model_card(folder: str | Path, base_model: str | None = None) -> None:
    """Write the card of a model just saved in `folder`, unless there is somebody's own README.md.

    Args:
        folder: Any folder. If it holds nothing of ours, it gets no card.
        base_model: What the weights were before training, where the folder does not tell.
    """
    folder = Path(folder)
    if describer_of(folder) is not None:
        write_card(model_card(folder, base_model=base_model), folder)


def model_card(
    folder: str | Path,
    repository: str = NAMELESS,
    base_model: str | None = None,
    rows: Sequence[dict[str, Any]] = (),
    results: str = "",
    dataset: str = "",
) -> ModelCard:
    """The card of a saved HyperLoRA adapter, FiD model, question encoder or composed model.

    Args:
        folder: Where it was saved.
        repository: Its name on the Hub.
        base_model: What the weights were before training. By default the folder or its card tells.
        rows: Results of [`~aag_hf.evaluation.evaluate_reader`]. The first is that of the model itself.
        results: The same rows in Markdown.
        dataset: Name of the data set of these results.

    Raises:
        ValueError: The folder holds none of these, or is damaged.
    """
    folder = Path(folder)
    describe = describer_of(folder)
    if describe is None:
        raise ValueError(f"{folder}: holds no HyperLoRA adapter, FiD model, question encoder or composed model.")
    try:
        about = describe(folder, repository)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder}: its configuration is damaged ({error!r}): save it again.") from error
    # Metadata that somebody added, such as a licence, stays. So does a base that the folder does not tell.
    before = {name: value for name, value in (replaceable_metadata(folder) or {}).items() if name not in OUR_METADATA}
    known = before.get("base_model")
    known = hub_name(base_model) or (hub_name(known) if isinstance(known, str) else None)
    metadata = before | {"base_model": known} | about.metadata
    if metadata["base_model"] is None:
        del metadata["base_model_relation"]
    evaluation = [
        EvalResult(
            task_type="question-answering",
            dataset_type=dataset,
            dataset_name=dataset,
            metric_type=name,
            metric_name=label,
            metric_value=round(rows[0][name], 2),
        )
        for name, label in METRICS.items()
        if rows
    ]
    auto_map = read_json(folder / "config.json").get("auto_map")
    auto_map = auto_map if isinstance(auto_map, dict) else {}
    metadata["tags"] = ["aag-hf", *metadata["tags"], *(["custom_code"] if auto_map else [])]
    data = ModelCardData(
        **metadata,
        datasets=[dataset] if dataset else None,
        metrics=list(METRICS) if rows else None,
        model_name=repository if evaluation else None,
        eval_results=evaluation or None,
    )
    return ModelCard.from_template(
        data,
        template_str=TEMPLATE,
        repository=repository,
        about=about,
        results=results,
        auto_class=next((name for name in auto_map if name != "AutoConfig" and name.isidentifier()), None),
        ours=OURS,
    )
