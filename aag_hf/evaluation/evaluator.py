"""Measures a reader on every example once, with standard errors and controls."""

import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import PartialState

from aag_hf.awakening import AwakeningConfig, AwakeningModel, AwakeningOutput
from aag_hf.awakening.aggregation import DraftOptions
from aag_hf.awakening.answering import answer_with_drafts
from aag_hf.awakening.drafts import Draft
from aag_hf.data.answers import Match
from aag_hf.data.contexts import context_of
from aag_hf.errors import InputError
from aag_hf.evaluation.controls import (
    OF_DOCUMENTS,
    OF_FEATURES,
    Control,
    WeightedTexts,
    check_control,
    controlled_documents,
    controlled_features,
)
from aag_hf.evaluation.processes import all_shares, own_share
from aag_hf.evaluation.scores import METRICS, check_scorable, score_predictions, summarise
from aag_hf.hyperlora import DocumentMemory

Records = Sequence[dict[str, Any]]
# Questions whose memories are held at a time: each takes megabytes.
_HELD = 256


def evaluate_reader(
    model: AwakeningModel,
    records: Records,
    *,
    control: Control = "none",
    batch_size: int = 32,
    seed: int = 29,
    match: Match = "words",
    processes: PartialState | None = None,
    drafts: DraftOptions | None = None,
) -> dict[str, Any]:
    """Answer every record's question and score the answers.

    Args:
        model: The composed model. It reads the records' own contexts if they have any, else those of its generator.
        records: Records of the data contract.
        control: Replaces the question's features or its document's memory, as in
            [`~aag_hf.evaluation.controls.controlled_features`] and
            [`~aag_hf.evaluation.controls.controlled_documents`]; ``"document_in_prompt"`` puts the document into the
            prompt too, ``"off"`` switches the adapter off.
        batch_size: Questions per forward pass.
        seed: Seed of the controls' shuffles.
        match: ``"regex"`` where the answers are regular expressions.
        processes: The processes that share the work, each with the whole model and all records. One of them answers
            each record, and all return the same. Without it this process works alone.
        drafts: Draw several contexts or answers for each question, and make one answer of them. Contexts that all
            records have as `generated_contexts` are read instead. The control must be ``"none"`` or ``"off"``, unless
            answers are drawn.

    Returns:
        The figures of [`~aag_hf.evaluation.scores.summarise`], `input_tokens` and `seconds` per question and, under
        `predictions`, one row per record.

    Raises:
        InputError: There are no records, one cannot be scored, the reader lacks the features that a control needs,
            contexts are missing, or drafts do not go with the reader or the control.

    Example:

    ```python
    model = AwakeningModel.from_pretrained("runs/quickstart/hyperlora_closed_book")
    result = evaluate_reader(model, read_records("runs/quickstart/data/test.jsonl.gz"), control="shuffled")
    print(result["exact_match"], "±", result["exact_match_stderr"])
    ```
    """
    if not records:
        raise InputError("no records to evaluate on.")
    check_control(control)
    check_scorable(records, match)
    if processes is not None and len(records) < processes.num_processes:
        processes = None
    share = own_share(records, processes)
    questions = [record["question"] for record in share]
    if drafts is not None and drafts.num_contexts > 1:
        if control not in ("none", "off"):
            raise InputError(f"control {control} and num_contexts were given: controls replace what the drafts are.")
        with _adapter(model, control):
            output = answer_with_drafts(model, questions, drafts, given_drafts(share), batch_size)
        return _scored(output, records, control, match, processes)
    contexts = given_contexts(model.config, share)
    passages = [record["ctxs"] for record in share] if model.config.fid else None
    if contexts is None and model.config.context != "none":
        contexts = model.write_contexts(questions, batch_size)
    features = _features(model, records, contexts, control, batch_size, seed, processes)
    documents, read = _documents(model, records, control, batch_size, seed, processes)
    if control == "document_in_prompt":
        contexts = documents
    with _adapter(model, control):
        if read is None:
            output = model.generate(questions, contexts, features, passages, batch_size, drafts=drafts)
        else:
            output = _remembered(model, questions, contexts, features, read, batch_size, drafts)
    return _scored(output, records, control, match, processes)


def _adapter(model: AwakeningModel, control: Control) -> AbstractContextManager[Any]:
    return model.reader.disable_adapter() if control == "off" else nullcontext()


def _scored(
    output: AwakeningOutput, records: Records, control: Control, match: Match, processes: PartialState | None
) -> dict[str, Any]:
    """The figures of `evaluate_reader`, of this process's answers."""
    rows = score_predictions(records, all_shares(output.answers, processes), match)
    for row, score in zip(rows, all_shares(output.scores or [], processes)):
        # The digits after these depend on what shares a batch.
        row["score"] = round(score, 4)
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
    """Exact match, F1 and best sub-span EM of a reader in training, in percent; serves as `answer_metrics` of a
    trainer.

    Args:
        model: The composed model whose reader is trained. A `model_init` must put each new reader into it.
        batch_size: Questions per forward pass.

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
        """The metrics over `records`, which all processes of the training share."""
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
    if control in OF_FEATURES and model.question_encoder is None:
        raise InputError(f"control {control!r} needs a reader with a question encoder: this one has none.")
    if control not in OF_FEATURES:
        return None
    relations = [record["relation"] for record in records if "relation" in record]
    questions = [record["question"] for record in own_share(records, processes)]
    own = model.encode_features(questions, contexts, batch_size).cpu()
    features = torch.stack(all_shares(list(own), processes))
    controlled = controlled_features(features, control, relations if len(relations) == len(records) else None, seed)
    return torch.stack(own_share(controlled.unbind(), processes))


def _remembered(
    model: AwakeningModel,
    questions: Sequence[str],
    contexts: Sequence[str] | None,
    features: torch.Tensor | None,
    read: Sequence[WeightedTexts],
    batch_size: int,
    drafts: DraftOptions | None,
) -> AwakeningOutput:
    """The answers of a reader of documents, which holds the memories of `_HELD` questions at a time."""
    whole = AwakeningOutput([], None, None, defaultdict(float), 0, [])
    for start in range(0, len(questions), _HELD):
        part = slice(start, start + _HELD)
        began = time.perf_counter()
        memory = _memory(model, read[part], batch_size)
        whole.seconds["memory"] += time.perf_counter() - began
        output = model.generate(
            questions[part],
            None if contexts is None else contexts[part],
            None if features is None else features[part],
            batch_size=batch_size,
            memory=memory,
            drafts=drafts,
        )
        whole.answers += output.answers
        whole.input_tokens += output.input_tokens
        for stage, seconds in output.seconds.items():
            whole.seconds[stage] += seconds
        whole.scores = None if whole.scores is None or output.scores is None else whole.scores + output.scores
    return whole


def _memory(model: AwakeningModel, documents: Sequence[WeightedTexts], batch_size: int) -> DocumentMemory:
    """A memory for each question, the weighted sum of its documents'."""
    each = list(dict.fromkeys(text for texts, _ in documents for text in texts))
    memory = model.memorize(each, batch_size=batch_size)
    place = {text: number for number, text in enumerate(each)}
    summed = [memory[[place[text] for text in texts]].sum(weights) for texts, weights in documents]
    return DocumentMemory.cat(summed)


def _documents(
    model: AwakeningModel,
    records: Records,
    control: Control,
    batch_size: int,
    seed: int,
    processes: PartialState | None,
) -> tuple[list[str], list[WeightedTexts]] | tuple[None, None]:
    """For this process's share of the records, their own documents and those that their adapters are made from."""
    if model.document_encoder is None:
        if control in OF_DOCUMENTS:
            raise InputError(f"control {control!r} needs a reader whose adapter is made from documents.")
        return None, None
    own = given_documents(model, own_share(records, processes), batch_size)
    read = controlled_documents(all_shares(own, processes), control, seed)
    return own, own_share(read, processes)


def given_documents(model: AwakeningModel, records: Records, batch_size: int = 32) -> list[str]:
    """The texts that the adapters are made from. The generator writes those that records lack."""
    config = model.config
    source = config.adapter_context
    written = source == "generated" and not any(record.get("generated_context") is not None for record in records)
    if written and model.generator is not None:
        return model.write_contexts([record["question"] for record in records], batch_size)
    return [context_of(record, source, config.adapter_passages) or "" for record in records]


def given_drafts(records: Records) -> list[list[Draft]] | None:
    """The `generated_contexts` of records, if all have them."""
    if not all("generated_contexts" in record for record in records):
        return None
    return [[Draft(one["text"], one["score"]) for one in record["generated_contexts"]] for record in records]


def given_contexts(config: AwakeningConfig, records: Records) -> list[str] | None:
    """The contexts that a reader reads. ``None`` if it reads none, or writes them itself.

    Raises:
        InputError: A record lacks what the reader reads.
    """
    source = config.context
    if source == "none":
        return None
    if source == "generated" and not any(record.get("generated_context") is not None for record in records):
        return None
    return [context_of(record, source, config.passages) or "" for record in records]
