"""Measure a reader: every example once, with standard errors and controls."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch

from aag_hf.awakening import AwakeningModel
from aag_hf.data.contexts import context_of
from aag_hf.data.errors import InputError
from aag_hf.evaluation.controls import Control, controlled_features
from aag_hf.evaluation.scores import score_predictions, summarise


def evaluate_reader(
    model: AwakeningModel,
    records: Sequence[dict[str, Any]],
    *,
    control: Control = "none",
    batch_size: int = 32,
    seed: int = 29,
) -> dict[str, Any]:
    """Answer every record's question and score the answers.

    Args:
        model: The composed model; contexts are the records' own where they have them, else the generator's.
        records: Records of the data contract.
        control: Replaces the question's features, or with ``"off"`` switches the adapter off.
        batch_size: Questions a forward pass.
        seed: Of the controls' shuffles.

    Returns:
        As [`~aag_hf.evaluation.scores.summarise`], with `input_tokens` and `seconds` a question and, under
        `predictions`, a row for each record.

    Raises:
        InputError: No records, a control that needs features of a reader without any, or missing contexts.

    Example:

    ```python
    model = AwakeningModel.from_pretrained("runs/quickstart/aag")
    result = evaluate_reader(model, read_records("runs/quickstart/data/test.jsonl.gz"), control="shuffled")
    print(result["exact_match"], "±", result["exact_match_stderr"])
    ```
    """
    if not records:
        raise InputError("no records to evaluate on.")
    questions = [record["question"] for record in records]
    contexts = _contexts(model, records)
    passages = [record["ctxs"] for record in records] if model.config.fid else None
    if contexts is None and model.config.context != "none":
        contexts = model.write_contexts(questions, batch_size)
    features = _features(model, records, contexts, control, batch_size, seed)
    adapter_off = model.reader.disable_adapter() if control == "off" else nullcontext()
    with adapter_off:
        output = model.generate(questions, contexts, features, passages, batch_size)
    rows = score_predictions(records, output.answers)
    return {
        **summarise(rows),
        "control": control,
        "input_tokens": output.input_tokens / len(records),
        "seconds": sum(output.seconds.values()) / len(records),
        "predictions": rows,
    }


def _features(
    model: AwakeningModel,
    records: Sequence[dict[str, Any]],
    contexts: list[str] | None,
    control: Control,
    batch_size: int,
    seed: int,
) -> torch.Tensor | None:
    if model.question_encoder is None:
        if control not in ("none", "off"):
            raise InputError(f"control {control!r} needs a reader with a question encoder: this one has none.")
        return None
    if control == "none":
        return None
    relations = [record["relation"] for record in records if "relation" in record]
    features = model.encode_features([record["question"] for record in records], contexts, batch_size)
    return controlled_features(features, control, relations if len(relations) == len(records) else None, seed)


def _contexts(model: AwakeningModel, records: Sequence[dict[str, Any]]) -> list[str] | None:
    source = model.config.context
    if source == "none":
        return None
    if source == "generated" and not any(record.get("generated_context") is not None for record in records):
        return None
    return [context_of(record, source, model.config.passages) or "" for record in records]
