"""Model cards, written from the content of a saved folder."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from safetensors import safe_open

from aag_hf.errors import InputError
from aag_hf.hub.cards import OURS, hub_name, read_json, replaceable_metadata, without_folder
from aag_hf.hub.kinds import kind_of
from aag_hf.markdown import in_code, in_text

METRICS = {"exact_match": "EM", "f1": "F1", "best_subspan_em": "best sub-span EM"}
OUR_METADATA = ("library_name", "base_model_relation", "pipeline_tag", "tags", "datasets", "metrics", "model-index")
# What a composed model does because of a part that it may have.
PARTS = {
    "generator": "A context generator writes a short document for each question.",
    "question_encoder": "A hypernetwork makes a LoRA adapter for each question.",
}
TEMPLATE = """\
---
{{ card_data }}
---

# {{ repository }}

{{ summary }}{% for part in parts %} {{ part }}{% endfor %}

It is part of Awakening Augmented Generation ([Liao et al., COLING 2025](https://arxiv.org/abs/2403.15268)), and needs
[aag-hf](https://pypi.org/project/aag-hf).

```python
{{ usage }}
```
{% if auto_class %}
Without aag-hf, `{{ auto_class }}.from_pretrained("{{ repository }}", trust_remote_code=True)` runs the Python files of
this repository: read them first.
{% endif %}
## Training

{% if base %}Base model: `{{ base }}`. {% endif %}{{ training }} {{ saved }}
{% if recipe %}
<details><summary>Options of the run</summary>

| option | value |
|---|---|
{% for name, value in recipe %}| `{{ name }}` | `{{ value }}` |
{% endfor %}
</details>
{% endif %}{% if results %}
## Results

{{ results }}

± is one standard error. Rows with shuffled features give each question the adapter of another question: the difference
is what the adapter draws from its question.
{% endif %}
## Limits

{{ limits }}

{{ ours }}
"""


def model_card(
    folder: str | Path,
    repository: str,
    rows: Sequence[dict[str, Any]] = (),
    results: str = "",
    dataset: str = "",
) -> ModelCard:
    """The card of a saved HyperLoRA adapter, FiD model, encoder or composed model.

    Metadata that somebody added to a card of ours in `folder`, such as a licence, stays.

    Args:
        folder: Where it was saved.
        repository: Its name on the Hub.
        rows: Results of [`~aag_hf.evaluation.evaluate_reader`]. The first is that of the model itself.
        results: The same rows in Markdown.
        dataset: Name of the data set of these results.

    Raises:
        InputError: The folder holds none of these, or is damaged.
    """
    folder = Path(folder)
    config = read_json(folder / "adapter_config.json") or read_json(folder / "config.json")
    kind = kind_of(folder, config)
    if kind is None:
        raise InputError(
            f"{folder}: holds no composed model, HyperLoRA adapter, FiD model or encoder that was saved here."
        )
    before = {name: value for name, value in (replaceable_metadata(folder) or {}).items() if name not in OUR_METADATA}
    named = config.get("base_model_name_or_path", config.get("backbone_name_or_path", before.get("base_model")))
    try:
        facts = _facts(folder, config, repository)
        texts = {name: text.format_map(facts) for name, text in vars(kind).items() if name != "tags"}
        base, saved, recipe = hub_name(named), _saved(config), sorted(config.get("training_recipe", {}).items())
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder}: its configuration is damaged ({error!r}): save it again.") from error
    parts = [part for part in PARTS if (folder / part).is_dir()]
    auto_map = config.get("auto_map")
    auto_classes = [name for name in auto_map if name != "AutoConfig"] if isinstance(auto_map, dict) else []
    custom = ["custom_code"] if auto_classes else []
    is_adapter, is_encoder = "peft_type" in config, "backbone_name_or_path" in config
    needs_base = is_adapter or is_encoder or (folder / "reader" / "adapter_config.json").is_file()
    metadata = before | {
        "library_name": "peft" if is_adapter else "aag-hf",
        "pipeline_tag": "feature-extraction" if is_encoder else "question-answering",
        "tags": ["aag-hf", *kind.tags, *(["hyperlora"] if "question_encoder" in parts else []), *custom],
        "base_model": base,
        "base_model_relation": ("adapter" if needs_base else "finetune") if base else None,
    }
    if rows:
        measured: dict[str, Any] = {"task_type": "question-answering", "dataset_type": dataset, "dataset_name": dataset}
        metadata |= {"datasets": [dataset], "metrics": list(METRICS), "model_name": repository}
        metadata["eval_results"] = [
            EvalResult(metric_type=name, metric_name=label, metric_value=round(rows[0][name], 2), **measured)
            for name, label in METRICS.items()
        ]
    return ModelCard.from_template(
        ModelCardData(**metadata),
        template_str=TEMPLATE,
        **texts,
        repository=repository,
        parts=[PARTS[part] for part in parts],
        base=in_code(base or without_folder(named)) if named else None,
        saved=saved,
        recipe=[(in_code(name), in_code(without_folder(value))) for name, value in recipe],
        results=results,
        auto_class=next(filter(str.isidentifier, auto_classes), None),
        ours=OURS,
    )


def _facts(folder: Path, config: dict[str, Any], repository: str) -> dict[str, Any]:
    """What is filled in for the words in braces."""
    facts = {name: value if isinstance(value, (int, float)) else in_code(value) for name, value in config.items()}
    facts |= {"repository": repository, "trained_parameters": facts.get("trained_parameters", "unknown")}
    if "peft_type" in config:
        suffix = {"CAUSAL_LM": "ForCausalLM", "SEQ_2_SEQ_LM": "ForSeq2SeqLM"}.get(config["task_type"], "")
        targets = config["target_modules"]
        facts["peft_class"] = f"AutoPeftModel{suffix}"
        facts["targets"] = in_code(targets if isinstance(targets, str) else ", ".join(sorted(targets)))
        facts["parameters"] = _count_parameters(folder)
    if "layer" in config:
        layer = config["layer"]
        facts["place"] = f"after {layer:.0%} of its depth" if isinstance(layer, float) else f"of layer {layer:d}"
    text = '"The capital of Fiji is Suva."'
    facts["given"] = f'passages=[[{{"title": "Fiji", "text": {text}}}]]' if config.get("fid") else f"contexts=[{text}]"
    return facts


def _saved(config: dict[str, Any]) -> str:
    """By what it was saved, and on what it was trained, as far as the configuration tells."""
    library, version = ("PEFT", "peft_version") if "peft_type" in config else ("transformers", "transformers_version")
    told = f"Saved with {library} {in_text(config.get(version, 'of an unknown version'))}."
    if "training_environment" in config:
        environment = ", ".join(f"{name} {value}" for name, value in config["training_environment"].items())
        told += f" Trained in {config['training_figures']['train_seconds']:.0f} seconds on {in_text(environment)}."
    return told


def _count_parameters(folder: Path) -> int:
    total = 0
    for path in folder.glob("adapter_model*.safetensors"):
        with safe_open(path, framework="pt") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return total
