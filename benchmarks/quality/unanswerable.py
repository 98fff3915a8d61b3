"""What tells a text that does not hold the answer: the answer's score, and the text's relevance to the question.

`aag quickstart` first, then `python benchmarks/quality/unanswerable.py`. Its reader of documents is asked about unseen
countries from the country's text, from the same text without the answer, and from another country's text. The least
score is chosen on other countries than those in the table; the least relevance is that below which `aag ask` warns.
"""

import random
import re
from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path

import torch
from data import Records, load_split

from aag_hf.awakening import AwakeningModel
from aag_hf.cli.ask import LITTLE
from aag_hf.data.answers import has_answer
from aag_hf.evaluation.confidence import accuracy_at
from aag_hf.evaluation.metrics import exact_match

# The share of right answers from the country's own text that may be refused on the countries to choose on.
REFUSED = 0.1
CLAUSES = re.compile(r"(?<=\.)\s|, (?:and )?| and ")


@dataclass
class Asked:
    """What the reader answered from one kind of text: a score, a relevance and whether it is right, per question."""

    scores: list[float]
    relevance: list[float]
    right: list[bool]

    def answered(self, least: float) -> list[bool]:
        """The questions that are answered rather than refused."""
        return [score >= least and about >= LITTLE for score, about in zip(self.scores, self.relevance)]


def ask(model: AwakeningModel, records: Records) -> dict[str, Asked]:
    """Answers from each kind of text."""
    own = [record["ctxs"][0]["text"] for record in records]
    draw = random.Random(17)  # nosec B311 # not for secrets
    texts = {
        "the country's own text": own,
        "… without the answer": [without_answer(text, record["answers"]) for text, record in zip(own, records)],
        "another country's text": [draw.choice([other for other in own if other != text]) for text in own],
    }
    questions = [record["question"] for record in records]
    encoder = model.document_encoder
    assert encoder is not None
    asked = {}
    for name, documents in texts.items():
        output = model.generate(questions, documents=documents, batch_size=64)
        assert output.scores is not None
        right = [exact_match(answer, record["answers"]) for answer, record in zip(output.answers, records)]
        asked[name] = Asked(output.scores, list(map(encoder.relevance, questions, documents)), right)
    return asked


def without_answer(text: str, answers: list[str]) -> str:
    """The text without the clauses that hold an answer."""
    return ", ".join(clause for clause in CLAUSES.split(text) if not has_answer(clause, answers))


def ranked_above(higher: list[float], lower: list[float]) -> float:
    """The probability that one of `higher` is above one of `lower` (AUC)."""
    pairs = [(one > other) + 0.5 * (one == other) for one in higher for other in lower]
    return sum(pairs) / len(pairs)


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("runs/quickstart/document_memory"))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = AwakeningModel.from_pretrained(options.model, dtype=torch.float32)
    chosen_on = ask(model, load_split("countries_choice", None).test)["the country's own text"]
    scores = sorted(score for score, right in zip(chosen_on.scores, chosen_on.right) if right)
    least = scores[int(REFUSED * len(scores))]
    print(f"least score {least:.2f}, least relevance {LITTLE}\n")
    print("| text | EM, all answered % | answered % | EM of these % | AUC of score | AUC of relevance |")
    print("|---|---|---|---|---|---|")
    asked = ask(model, load_split("countries", None).test)
    own = asked["the country's own text"]
    for name, one in asked.items():
        answered = one.answered(least)
        kept = [right for right, is_answered in zip(one.right, answered) if is_answered]
        row = [100 * sum(one.right) / len(one.right), 100 * len(kept) / len(answered)]
        row += [100 * sum(kept) / max(1, len(kept))]
        row += [ranked_above(own.scores, one.scores), ranked_above(own.relevance, one.relevance)]
        print(f"| {name} | {' | '.join(f'{figure:.2f}' for figure in row)} |", flush=True)
    mixed = [value for one in asked.values() for value in zip(one.scores, one.relevance, one.right)]
    certainty = [score if about >= LITTLE else -100.0 for score, about, _ in mixed]
    right = [float(value) for *_, value in mixed]
    for share in (1 / 6, 1 / 3, 1 / 2, 1):
        print(f"of all three, the surest {share:.0%}: EM {100 * accuracy_at(share, certainty, right):.1f}")


if __name__ == "__main__":
    main()
