"""Measure a reader: every example once, with standard errors and controls."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import PartialState

from aag_hf.awakening import AwakeningConfig, AwakeningModel
from aag_hf.data.answers import Match
from aag_hf.data.contexts import context_of
from aag_hf.errors import InputError
from aag_hf.evaluation.controls import Control, controlled_features
from aag_hf.evaluation.processes import all_shares, own_share
from aag_hf.evaluation.scores import METRICS, check_groups, score_predictions, summarise

Records = Sequence[dict[str, Any]]


def evaluate_reader(
    model: AwakeningModel,
    records: Records,
    *,
    control: Control = "none",
    batch_size: int = 32,
    seed: int = 29,
    match: Match = "words",
    processes: PartialState | None = None,
) -> dict[str, Any]:
    """Answer every record's question and score the answers.

    Args:
        model: The composed model; contexts are the records' own where they have them, else the generator's.
        records: Records of the data contract.
        control: Replaces the question's features, or with ``"off"`` switches the adapter off.
        batch_size: Questions a forward pass.
        seed: Of the controls' shuffles.
        match: ``"regex"`` where the answers are regular expressions.
        processes: Those that share the work, each with the whole model and all records: each record is answered by one
            of them and all return the same. Without it this process works alone.

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
    check_groups(records)
    if processes is not None and len(records) < processes.num_processes:
        processes = None
    share = own_share(records, processes)
    questions = [record["question"] for record in share]
    contexts = given_contexts(model.config, share)
    passages = [record["ctxs"] for record in share] if model.config.fid else None
    if contexts is None and model.config.context != "none":
        contexts = model.write_contexts(questions, batch_size)
    features = _features(model, records, contexts, control, batch_size, seed, processes)
    adapter_off = model.reader.disable_adapter() if control == "off" else nullcontext()
    with adapter_off:
        output = model.generate(questions, contexts, features, passages, batch_size)
    rows = score_predictions(records, all_shares(output.answers, processes), match)
    costs = [(output.input_tokens, sum(output.seconds.values()))]
    tokens, seconds = map(sum, zip(*all_shares(costs, processes)))
    return {
        **summarise(rows),
        "control": control,
        "input_tokens": tokens / len(records),
        "seconds": seconds / len(records),
        "predictions": rows,
    }


class ReaderMetrics:
    """Exact match, F1 and best sub-span EM of a reader while it is trained, in percent: a trainer's `answer_metrics`.

    Args:
        model: The composed model whose reader the trainer trains; a `model_init` must put each new reader into it.
        batch_size: Questions a forward pass.

    Example:

    ```python
    model = AwakeningModel(config, student, tokenizer, encoder)
    args = ContextDistillationConfig("runs/reader", eval_strategy="steps", load_best_model_at_end=True,
                                     metric_for_best_model="exact_match", greater_is_better=True)
    trainer = ContextDistillationTrainer(model.reader, args, answer_metrics=ReaderMetrics(model), ...)
    ```
    """

    def __init__(self, model: AwakeningModel, batch_size: int = 32):
        self.model = model
        self.batch_size = batch_size

    def __call__(self, records: Records) -> dict[str, float]:
        """The metrics over `records`, which all processes of the training share among them."""
        result = evaluate_reader(self.model, records, batch_size=self.batch_size, processes=PartialState())
        return {metric: result[metric] for metric in METRICS}


def _features(
    model: AwakeningModel,
    records: Records,
    contexts: list[str] | None,
    control: Control,
    batch_size: int,
    seed: int,
    processes: PartialState | None,
) -> torch.Tensor | None:
    if model.question_encoder is None:
        if control not in ("none", "off"):
            raise InputError(f"control {control!r} needs a reader with a question encoder: this one has none.")
        return None
    if control == "none":
        return None
    relations = [record["relation"] for record in records if "relation" in record]
    questions = [record["question"] for record in own_share(records, processes)]
    own = model.encode_features(questions, contexts, batch_size).cpu()
    features = torch.stack(all_shares(list(own), processes))
    controlled = controlled_features(features, control, relations if len(relations) == len(records) else None, seed)
    return torch.stack(own_share(controlled.unbind(), processes))


def given_contexts(config: AwakeningConfig, records: Records) -> list[str] | None:
    """The contexts of records that a reader is to read; ``None`` where it reads none, or writes them itself.

    Raises:
        InputError: A record lacks what the reader reads.
    """
    source = config.context
    if source == "none":
        return None
    if source == "generated" and not any(record.get("generated_context") is not None for record in records):
        return None
    return [context_of(record, source, config.passages) or "" for record in records]
