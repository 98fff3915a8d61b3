"""The quality of generated contexts."""

from collections.abc import Sequence
from typing import Any

from aag_hf.data.answers import has_answer


def context_report(records: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Answer recall of `generated_context` and its ROUGE-L F1 against `compressed_context`, in percent.

    Args:
        records: Records with `generated_context`. ROUGE-L is computed over those that also have a `compressed_context`.

    Returns:
        `count`, `answer_recall` and, if there are compressed contexts, `rouge_l`; if all records have
        `generated_contexts`, also `answer_recall_any`: how often one of them has the answer.
    """
    from rouge_score.rouge_scorer import RougeScorer

    found = [has_answer(record["generated_context"], record["answers"]) for record in records]
    report = {"count": float(len(records)), "answer_recall": 100.0 * sum(found) / len(records)}
    if all("generated_contexts" in record for record in records):
        texts = ([draft["text"] for draft in record["generated_contexts"]] for record in records)
        found = [any(has_answer(text, r["answers"]) for text in each) for r, each in zip(records, texts)]
        report["answer_recall_any"] = 100.0 * sum(found) / len(records)
    scorer = RougeScorer(["rougeL"])
    overlaps = [
        scorer.score(record["compressed_context"], record["generated_context"])["rougeL"].fmeasure
        for record in records
        if record.get("compressed_context") is not None
    ]
    if overlaps:
        report["rouge_l"] = 100.0 * sum(overlaps) / len(overlaps)
    return report
