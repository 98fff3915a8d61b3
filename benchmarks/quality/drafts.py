"""What several drafts are worth: the quickstart's readers, one answer against several that are voted, scored or chosen.

`aag quickstart` first, then `python benchmarks/quality/drafts.py`. The scorer is fitted on countries that no reader was
trained on and that are not asked in the end; what it chooses there is measured with it cross-fitted. Contexts and
answers are kept in the output folder, and a second run makes the table from them. `--draw dev` and `--draw test` draw
the closed-book answers of one split and no more, so that two processes can share the work.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from figures import HEADING, Results, exact, ranking
from kept_evidence import Records, read_evidence

from aag_hf.awakening import AwakeningModel
from aag_hf.awakening.aggregation import Candidate, DraftOptions, vote
from aag_hf.awakening.answering import answer_each, answer_with_drafts
from aag_hf.awakening.evidence import Evidence
from aag_hf.awakening.loading import load_language_model
from aag_hf.cli.dtypes import DTYPES, chosen_dtype
from aag_hf.cli.generate import GenerateOptions, generate
from aag_hf.cli.quickstart_settings import CONTEXT_TOKENS
from aag_hf.data.countries import load_countries
from aag_hf.data.records import read_records, write_records
from aag_hf.evaluation.choosing import cross_fitted
from aag_hf.evaluation.evaluator import given_drafts
from aag_hf.evaluation.metrics import exact_match, has_answer
from aag_hf.evaluation.report import write_json

SEED = 17
NUMBERS = (2, 4, 8)
ANSWERS = DraftOptions(num_answers=NUMBERS[-1], seed=SEED)
CONTEXTS = DraftOptions(num_contexts=NUMBERS[-1], seed=SEED)
Load = Callable[[str], AwakeningModel]


def closed_book(options: Namespace, load: Load, results: Results, development: Records, told: dict[str, Any]) -> None:
    """Answers that are drawn without any context: what a vote or a choice adds by itself."""
    model = load("lora_closed_book")
    of_split = {"dev": development, "test": results.records}
    for split in [options.draw] if options.draw else of_split:
        read_evidence(model, of_split[split], ANSWERS, options.rows, options.output / f"{split}_closed_book.json")
    if options.draw:
        return
    seen, asked = (
        read_evidence(model, records, ANSWERS, options.rows, options.output / f"{split}_closed_book.json")
        for split, records in of_split.items()
    )
    results.add("closed book, one answer", [one.candidates[0] for one in asked.evidence])
    for number in NUMBERS:
        results.choose("closed-book answers", seen, asked, number)
    told["AUC, closed book"] = ranking(asked)
    told["EM on development data, closed book"] = {
        "one answer": exact([one.candidates[0] for one in seen.evidence], development),
        "best of 8, cross-fitted": exact(cross_fitted(development, seen.evidence), development),
    }


def contexts(options: Namespace, load: Load, results: Results, development: Records, told: dict[str, Any]) -> None:
    """Answers from contexts that the generator drew, in the prompt and in the adapter."""
    test = with_contexts(options, "test", results.records)
    development = with_contexts(options, "dev", development)
    model = load("lora_generated")
    seen = read_evidence(model, development, CONTEXTS, options.rows, options.output / "dev_contexts.json")
    asked = read_evidence(model, test, CONTEXTS, options.rows, options.output / "test_contexts.json")
    results.add("context in the prompt, one", [one.candidates[0] for one in asked.evidence])
    for number in NUMBERS:
        results.choose("contexts in the prompt", seen, asked, number)
        joined(options, results, model, test, "fuse", number)
    told["AUC, contexts in the prompt"] = ranking(asked)
    told["EM of a context's answer"] = drafts_and_answers(test, asked.evidence)
    other = given_drafts(of_another_question(test))
    chosen = answer_each(model, _questions(test), CONTEXTS, other, options.rows).candidates
    results.add("contexts of another question in the prompt, 8: vote", list(map(vote, chosen)))
    model = load("document_memory")
    candidates = answer_each(model, _questions(test), CONTEXTS, given_drafts(test), options.rows).candidates
    results.add("context in the adapter, one", [each[0] for each in candidates])
    for number in NUMBERS:
        results.add(f"contexts in the adapter, {number}: vote", [vote(each[:number]) for each in candidates])
        joined(options, results, model, test, "memory", number)


def joined(
    options: Namespace, results: Results, model: AwakeningModel, records: Records, aggregation: str, number: int
) -> None:
    """The row of a reader that reads all drafts of a question at once."""
    drawing = DraftOptions(num_contexts=number, aggregation=aggregation, seed=SEED)
    output = answer_with_drafts(model, _questions(records), drawing, given_drafts(records), options.rows)
    assert output.scores is not None
    results.add(f"contexts, {number}: {aggregation}", list(map(Candidate, output.answers, output.scores)))


def with_contexts(options: Namespace, name: str, records: Records) -> Records:
    """The records with eight contexts each, which are written if they are not there."""
    source, target = options.output / f"{name}.jsonl.gz", options.output / f"{name}_drafts.jsonl.gz"
    write_records(records, source)
    drawn = generate(
        GenerateOptions(
            model_name_or_path=options.base,
            dtype=options.dtype,
            attn_implementation="eager",
            generator=[str(options.run / "generator")],
            input=str(source),
            output=str(target),
            context_max_length=CONTEXT_TOKENS,
            num_contexts=CONTEXTS.num_contexts,
            seed=SEED,
            batch_size=options.rows,
        )
    )
    return list(drawn)


def of_another_question(records: Records) -> Records:
    """Each question with the drafts of the next one of its relation."""
    drafts: dict[str, Any] = {}
    for relation in {record["relation"] for record in records}:
        alike = [record for record in records if record["relation"] == relation]
        drafts |= {one["id"]: other["generated_contexts"] for one, other in zip(alike, [*alike[1:], alike[0]])}
    return [record | {"generated_contexts": drafts[record["id"]]} for record in records]


def drafts_and_answers(records: Records, evidence: list[Evidence]) -> dict[str, float]:
    """How often an answer read from a draft is right, if the draft holds one and if not, in percent."""
    outcomes: dict[bool, list[bool]] = {True: [], False: []}
    for record, one in zip(records, evidence):
        for draft, candidate in zip(record["generated_contexts"], one.candidates):
            held = has_answer(draft["text"], record["answers"])
            outcomes[held].append(exact_match(candidate.answer, record["answers"]))
    return {
        f"{len(right)} drafts {'with' if held else 'without'} it": 100 * sum(right) / max(1, len(right))
        for held, right in outcomes.items()
    }


def spare_records(used: list[Records], entities: int) -> Records:
    """Questions about countries of which no stage of the quickstart has seen one."""
    seen = {record["entity"] for records in used for record in records}
    spare = [r for records in load_countries(SEED).values() for r in records if r["entity"] not in seen]
    chosen = list(dict.fromkeys(record["entity"] for record in spare))[:entities]
    return [record for record in spare if record["entity"] in chosen]


def _questions(records: Records) -> list[str]:
    return [record["question"] for record in records]


def arguments() -> Namespace:
    """The command line."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/quickstart"), help="folder of the quickstart")
    parser.add_argument("--output", type=Path, default=Path("runs/drafts"), help="where drafts and results go")
    parser.add_argument("--base", default="embedded", help="base model of the quickstart")
    parser.add_argument("--dtype", default="auto", help="type of the base model's weights, as of the commands")
    parser.add_argument("--spare", type=int, default=30, help="countries to fit the scorer on, besides development")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, default=64, help="rows per forward pass")
    parser.add_argument("--draw", choices=("dev", "test"), help="only draw the closed-book answers of this split")
    parser.add_argument("--closed_book_only", action="store_true", help="leave out all that reads contexts")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    options.dtype = chosen_dtype(options.dtype)
    data = {s: read_records(options.run / "data" / f"{s}.jsonl.gz") for s in ("generator", "train", "dev", "test")}
    base = load_language_model(options.base, dtype=DTYPES[options.dtype], attn_implementation="eager")

    def load(name: str) -> AwakeningModel:
        return AwakeningModel.from_pretrained(options.run / name, base_model=base)

    development = [*data["dev"], *spare_records(list(data.values()), options.spare)]
    results, told = Results(data["test"]), {}
    print(f"{len(data['test'])} test and {len(development)} development questions\n\n{HEADING}")
    closed_book(options, load, results, development, told)
    if options.draw:
        return
    if not options.closed_book_only:
        contexts(options, load, results, data["dev"], told)
    write_json({"rows": results.rows, "told": told}, options.output / "results.json")
    for name, figures in told.items():
        print(f"\n{name}:", *(f"  {what}: {figure:.2f}" for what, figure in figures.items()), sep="\n")


if __name__ == "__main__":
    main()
