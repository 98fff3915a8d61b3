"""What several drafts are worth: the quickstart's readers, one answer against several that are voted, scored or chosen.

`aag quickstart` first, then `python benchmarks/quality/drafts.py`. The scorer is fitted on countries that no reader was
trained on and that are not asked in the end; what it chooses there is measured with it cross-fitted. Contexts that were
drawn are kept in the output folder, and a second run reads them.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from aag_hf.awakening import AwakeningModel
from aag_hf.awakening.aggregation import Candidate, DraftOptions, vote
from aag_hf.awakening.answer_scorer import AnswerScorer
from aag_hf.awakening.answering import answer_each, answer_with_drafts
from aag_hf.awakening.evidence import Evidence, evidence_of
from aag_hf.awakening.loading import load_language_model
from aag_hf.cli.generate import GenerateOptions, generate
from aag_hf.cli.quickstart_settings import CONTEXT_TOKENS
from aag_hf.data.countries import load_countries
from aag_hf.data.records import read_records, write_records
from aag_hf.evaluation.choosing import cross_fitted, right_answers
from aag_hf.evaluation.confidence import accuracy_at, calibration_error
from aag_hf.evaluation.evaluator import given_drafts
from aag_hf.evaluation.metrics import best_subspan_em, exact_match, has_answer
from aag_hf.evaluation.report import write_json
from aag_hf.evaluation.scores import clustered_stderr

Records = Sequence[dict[str, Any]]
SEED = 17
NUMBERS = (1, 2, 4, 8)
BASELINE = "closed book, one answer"


@dataclass
class Split:
    """Questions, and what speaks for the answers to each.

    Args:
        records: The questions.
        evidence: Of the answers to each.
    """

    records: Records
    evidence: list[Evidence]

    def first(self, number: int) -> "Split":
        """The same with the first drafts alone: their answers do not depend on the others."""
        return Split(self.records, [_first(one, number) for one in self.evidence])


def _first(evidence: Evidence, number: int) -> Evidence:
    few = replace(evidence, candidates=evidence.candidates[:number])
    # Answers stand as they came up, so those of the first drafts are the first answers.
    answers = len(few.groups)
    return replace(
        few,
        draft_scores=few.draft_scores[:number],
        log_likelihoods=few.log_likelihoods[:answers, :number],
        question_log_probs=few.question_log_probs[:answers],
    )


class Results:
    """Rows of the table, each compared with one answer of the same baseline, question by question."""

    def __init__(self, records: Records):
        self.records = records
        self.rows: list[dict[str, Any]] = []
        self.baseline: list[float] = []

    def add(self, name: str, chosen: Sequence[Candidate]) -> None:
        """Score the answers and print their row."""
        right = [float(exact_match(c.answer, r["answers"])) for c, r in zip(chosen, self.records)]
        found = [float(best_subspan_em(c.answer, r["answers"])) for c, r in zip(chosen, self.records)]
        self.baseline = self.baseline or right
        gained = [100 * (one - other) for one, other in zip(right, self.baseline)]
        entities = [record.get("entity", record["id"]) for record in self.records]
        scores = [candidate.score for candidate in chosen]
        row = {
            "name": name,
            "exact_match": 100 * sum(right) / len(right),
            "sub_span": 100 * sum(found) / len(found),
            "gain": sum(gained) / len(gained),
            "gain_stderr": clustered_stderr(gained, entities),
            "calibration_error": calibration_error(scores, right),
            "exact_match_at_half": 100 * accuracy_at(0.5, scores, right),
        }
        self.rows.append(row)
        print(_line(row), flush=True)


HEADING = (
    "| way of answering | EM % | sub-span % | EM against one closed-book answer | ECE | EM of the surer half % |\n"
    "|---|---|---|---|---|---|"
)


def _line(row: dict[str, Any]) -> str:
    return (
        f"| {row['name']} | {row['exact_match']:.1f} | {row['sub_span']:.1f} "
        f"| {row['gain']:+.1f} ± {row['gain_stderr']:.1f} | {row['calibration_error']:.2f} "
        f"| {row['exact_match_at_half']:.1f} |"
    )


def choose(results: Results, name: str, development: Split, test: Split, number: int) -> None:
    """Rows of one way of drawing: its drafts voted, by their marginal probability, and chosen by a fitted scorer."""
    seen, asked = development.first(number), test.first(number)
    results.add(f"{name}, {number}: vote", [vote(one.candidates) for one in asked.evidence])
    results.add(f"{name}, {number}: marginal", [one.best() for one in asked.evidence])
    right = torch.cat([right_answers(*pair) for pair in zip(seen.evidence, seen.records)])
    scorer = AnswerScorer.fit(torch.cat([one.table for one in seen.evidence]), right)
    results.add(f"{name}, {number}: best", [one.best(scorer) for one in asked.evidence])
    oracle = [_oracle(one, record) for one, record in zip(asked.evidence, asked.records)]
    results.add(f"{name}, {number}: any of them right", oracle)


def _oracle(evidence: Evidence, record: dict[str, Any]) -> Candidate:
    return max(evidence.candidates, key=lambda candidate: exact_match(candidate.answer, record["answers"]))


def ranking(split: Split) -> dict[str, float]:
    """How well each kind of evidence tells right from wrong answers (AUC): among those to one question, and overall."""
    kinds = {"log p(answer)": 0, "share of drafts": 2, "log p(question | answer)": 4}
    told = {}
    right = [right_answers(one, record) for one, record in zip(split.evidence, split.records)]
    for name, column in kinds.items():
        values = [one.table[:, column] for one in split.evidence]
        within = [_wins(value, good) for value, good in zip(values, right)]
        pairs = sum(count for _, count in within)
        told[f"{name}, within a question"] = sum(wins for wins, _ in within) / pairs
        wins, pairs = _wins(torch.cat(values), torch.cat(right))
        told[f"{name}, over all questions"] = wins / pairs
    greedy = torch.tensor([one.candidates[0].score for one in split.evidence])
    good = [exact_match(one.candidates[0].answer, r["answers"]) for one, r in zip(split.evidence, split.records)]
    wins, pairs = _wins(greedy, torch.tensor(good, dtype=torch.float64))
    return told | {"score of the greedy answer, over all questions": wins / pairs}


def _wins(values: torch.Tensor, right: torch.Tensor) -> tuple[float, int]:
    """Pairs of a right and a wrong answer in which the right one has the higher value, ties as half, and all pairs."""
    difference = values[right == 1][:, None] - values[right == 0][None]
    return (difference > 0).sum().item() + (difference == 0).sum().item() / 2, difference.numel()


def read_evidence(model: AwakeningModel, records: Records, options: DraftOptions, rows: int) -> Split:
    """Answers and evidence for all questions."""
    questions = [record["question"] for record in records]
    drafts = given_drafts(records) if options.num_contexts > 1 else None
    answered = answer_each(model, questions, options, drafts, rows)
    return Split(records, evidence_of(model, questions, answered, rows))


def of_another_question(records: Records) -> Records:
    """Each question with the drafts of the next one of its relation."""
    drafts: dict[str, Any] = {}
    for relation in {record["relation"] for record in records}:
        alike = [record for record in records if record["relation"] == relation]
        following = [*alike[1:], alike[0]]
        drafts |= {one["id"]: other["generated_contexts"] for one, other in zip(alike, following)}
    return [record | {"generated_contexts": drafts[record["id"]]} for record in records]


def drafts_and_answers(records: Records, evidence: Sequence[Evidence]) -> dict[str, float]:
    """How often an answer read from a draft is right, if the draft holds one and if not, in percent."""
    outcomes: dict[bool, list[bool]] = {True: [], False: []}
    for record, one in zip(records, evidence):
        for draft, candidate in zip(record["generated_contexts"], one.candidates):
            outcomes[has_answer(draft["text"], record["answers"])].append(
                exact_match(candidate.answer, record["answers"])
            )
    return {f"drafts {'with' if held else 'without'} it": 100 * sum(v) / len(v) for held, v in outcomes.items()}


def spare_records(used: Sequence[Records], entities: int) -> Records:
    """Questions about countries of which no stage of the quickstart has seen one."""
    seen = {record["entity"] for records in used for record in records}
    spare = [r for records in load_countries(SEED).values() for r in records if r["entity"] not in seen]
    chosen = list(dict.fromkeys(record["entity"] for record in spare))[:entities]
    return [record for record in spare if record["entity"] in chosen]


def arguments() -> Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/quickstart"), help="folder of the quickstart")
    parser.add_argument("--output", type=Path, default=Path("runs/drafts"), help="where drafts and results go")
    parser.add_argument("--dtype", default="float32", help="type of the base model's weights")
    parser.add_argument("--spare", type=int, default=30, help="countries to fit the scorer on, besides development")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, default=64, help="rows per forward pass")
    parser.add_argument("--closed_book_only", action="store_true", help="leave out all that reads contexts")
    return parser.parse_args()


def with_contexts(options: Namespace, name: str, records: Records) -> Records:
    """The records with eight contexts each, which are written if they are not there."""
    source, target = options.output / f"{name}.jsonl.gz", options.output / f"{name}_contexts.jsonl.gz"
    if not source.exists():
        write_records(records, source)
    drawn = generate(
        GenerateOptions(
            model_name_or_path="embedded",
            dtype=options.dtype,
            attn_implementation="eager",
            generator=[str(options.run / "generator")],
            input=str(source),
            output=str(target),
            context_max_length=CONTEXT_TOKENS,
            num_contexts=NUMBERS[-1],
            batch_size=options.rows,
        )
    )
    return list(drawn)


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    data = {s: read_records(options.run / "data" / f"{s}.jsonl.gz") for s in ("generator", "train", "dev", "test")}
    development = [*data["dev"], *spare_records(list(data.values()), options.spare)]
    test = data["test"]
    print(f"{len(test)} test questions, {len(development)} development questions\n\n{HEADING}")
    loading = {"dtype": getattr(torch, options.dtype), "attn_implementation": "eager"}
    base = load_language_model("embedded", **loading)
    results = Results(test)
    told: dict[str, Any] = {}

    answers = DraftOptions(num_answers=NUMBERS[-1], seed=SEED)
    model = AwakeningModel.from_pretrained(options.run / "lora_closed_book", base_model=base)
    seen, asked = (read_evidence(model, records, answers, options.rows) for records in (development, test))
    results.add(BASELINE, [one.candidates[0] for one in asked.evidence])
    for number in NUMBERS[1:]:
        choose(results, "closed-book answers", seen, asked, number)
    told["closed book: AUC"] = ranking(asked)
    crossed = cross_fitted(seen.records, seen.evidence)
    for name, chosen in (("best, cross-fitted", crossed), ("one answer", [one.candidates[0] for one in seen.evidence])):
        right = [exact_match(c.answer, r["answers"]) for c, r in zip(chosen, development)]
        told[f"closed book on development data: {name}, EM %"] = 100 * sum(right) / len(right)

    if not options.closed_book_only:
        contexts = DraftOptions(num_contexts=NUMBERS[-1], seed=SEED)
        asked_records = with_contexts(options, "test", test)
        seen_records = with_contexts(options, "dev", data["dev"])
        model = AwakeningModel.from_pretrained(options.run / "lora_generated", base_model=base)
        seen, asked = (read_evidence(model, r, contexts, options.rows) for r in (seen_records, asked_records))
        results.add("context in the prompt, one", [one.candidates[0] for one in asked.evidence])
        for number in NUMBERS[1:]:
            choose(results, "contexts in the prompt", seen, asked, number)
        told["context in the prompt: AUC"] = ranking(asked)
        told["context in the prompt: EM %"] = drafts_and_answers(asked_records, asked.evidence)
        other = answer_each(model, _questions(test), contexts, given_drafts(of_another_question(asked_records)))
        results.add("contexts of another question, 8: vote", [vote(each) for each in other.candidates])
        for number in NUMBERS[1:]:
            joined(results, model, asked_records, "fuse", number, options.rows)
        if (options.run / "document_memory").exists():
            model = AwakeningModel.from_pretrained(options.run / "document_memory", base_model=base)
            of_memory = answer_each(model, _questions(test), contexts, given_drafts(asked_records), options.rows)
            results.add("context in the adapter, one", [each[0] for each in of_memory.candidates])
            for number in NUMBERS[1:]:
                chosen = [vote(each[:number]) for each in of_memory.candidates]
                results.add(f"contexts in the adapter, {number}: vote", chosen)
                joined(results, model, asked_records, "memory", number, options.rows)
    write_json({"rows": results.rows, "told": told}, options.output / "results.json")
    for name, figure in told.items():
        print(name, figure)


def joined(results: Results, model: AwakeningModel, records: Records, aggregation: str, number: int, rows: int) -> None:
    """The row of a reader that reads all drafts of a question at once."""
    options = DraftOptions(num_contexts=number, aggregation=aggregation, seed=SEED)
    output = answer_with_drafts(model, _questions(records), options, given_drafts(records), rows)
    assert output.scores is not None
    chosen = [Candidate(answer, score) for answer, score in zip(output.answers, output.scores)]
    results.add(f"contexts, {number}: {aggregation}", chosen)


def _questions(records: Records) -> list[str]:
    return [record["question"] for record in records]


if __name__ == "__main__":
    main()
