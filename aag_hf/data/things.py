"""Made-up things of many kinds: short texts with questions, in which only reading them helps."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from aag_hf.data.invented import (
    invented_person,
    invented_word,
    some_code,
    some_date,
    some_time,
    some_year,
    spelled,
)

Value = str | dict[str, Any]
# Of the texts, those about two things of one kind with the same properties: who is meant decides.
PAIRS = 0.25
DRAWN: dict[str, Callable[[random.Random], str]] = {
    "person": invented_person,
    "word": invented_word,
    "year": some_year,
    "date": some_date,
    "time": some_time,
    "code": some_code,
}


@dataclass(frozen=True)
class Kind:
    """A kind of thing.

    Args:
        names: Forms of a name, with ``{word}`` or ``{person}`` in them.
        pronouns: Its pronoun and the possessive.
        also: Other words for it in a text.
    """

    names: list[str]
    pronouns: list[str]
    also: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Relation:
    """A property of some kinds.

    Args:
        kinds: Which have it.
        value: How its values are drawn.
        sentences: Wordings, with ``{n}`` for the thing or ``{p}`` for its possessive, and ``{v}`` for the value.
        questions: Questions, with ``{e}`` for the thing's name or ``{p}`` for the possessive.
        value_first: Wordings that begin with the value.
    """

    kinds: list[str]
    value: Value
    sentences: list[str]
    questions: list[str]
    value_first: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Fact:
    """What a text says of a thing."""

    relation: str
    value: str


@dataclass(frozen=True)
class Wordings:
    """The content of ``things.yaml``."""

    kinds: dict[str, Kind]
    relations: dict[str, Relation]
    values: dict[str, list[str]]

    def relations_of(self, kind: str) -> list[str]:
        """The names of a kind's relations."""
        return [name for name, relation in self.relations.items() if kind in relation.kinds]


def made_things(count: int, seed: int = 29) -> list[dict[str, Any]]:
    """Records about made-up things: a lighthouse, a lease, a chess player, and one question per fact that is told.

    They teach a hypernetwork to read texts of any kind, since kinds, properties and wordings vary. A quarter of the
    texts are about two things of one kind that have the same properties.

    Args:
        count: How many texts.
        seed: Seed of everything that is drawn.

    Returns:
        Records like those of [`~aag_hf.data.load_countries`]; ``relation`` is the property, ``entity`` the thing.

    Example:

    ```python
    made_things(1)[0]["ctxs"][0]["text"]
    ```
    """
    draw = random.Random(f"made things {seed}")  # nosec B311 # not for secrets
    wordings = read_wordings()
    return [record for number in range(count) for record in _records(draw, wordings, f"made-things-{seed}-{number}")]


@cache
def read_wordings() -> Wordings:
    """What the texts are made of."""
    content = yaml.safe_load(files("aag_hf.data").joinpath("things.yaml").read_text(encoding="utf-8"))
    kinds = {name: Kind(**kind) for name, kind in content["kinds"].items()}
    relations = {name: Relation(**relation) for name, relation in content["relations"].items()}
    return Wordings(kinds, relations, content["values"])


def _records(draw: random.Random, wordings: Wordings, name_of_text: str) -> list[dict[str, Any]]:
    kind = draw.choice(sorted(wordings.kinds))
    known = wordings.relations_of(kind)
    in_pairs = draw.random() < PAIRS
    told = draw.sample(known, draw.randint(2, 3) if in_pairs else draw.randint(3, min(6, len(known))))
    names: list[str] = []
    while len(names) < (2 if in_pairs else 1):
        name = draw.choice(wordings.kinds[kind].names).format(word=invented_word(draw), person=invented_person(draw))
        if name not in names:
            names.append(name)
    facts = {name: [Fact(relation, _value(draw, wordings, relation)) for relation in told] for name in names}
    parts = []
    for name in names:
        draw.shuffle(facts[name])
        parts.append(_text(draw, wordings, kind, name, facts[name], named=in_pairs))
    title = names[0] if not in_pairs and draw.random() < 0.3 else ""
    document = {"title": title, "text": " ".join(parts), "has_answer": True}
    return [
        {
            "id": f"{name_of_text}-{place}-{fact.relation}",
            "question": _asked(draw.choice(wordings.relations[fact.relation].questions), name),
            "answers": [fact.value],
            "ctxs": [document],
            "relation": fact.relation,
            "entity": name,
            "dataset": "made_things",
        }
        for place, name in enumerate(names)
        for fact in facts[name]
    ]


def _asked(question: str, name: str) -> str:
    return _capital(question.format(e=name, p=_possessive(name)))


def _text(draw: random.Random, wordings: Wordings, kind: str, name: str, facts: list[Fact], named: bool) -> str:
    """Sentences of one to three facts each. The first one names the thing; with `named` more of them do."""
    pronoun, possessive = wordings.kinds[kind].pronouns
    others = [(other, _possessive(other)) for other in wordings.kinds[kind].also]
    sentences: list[str] = []
    rest = list(facts)
    while rest:
        clauses: list[str] = []
        for fact in rest[: draw.choice([1, 1, 1, 2, 3])]:
            relation = wordings.relations[fact.relation]
            first = not (sentences or clauses)
            subject = (pronoun, possessive)
            if first or draw.random() < (0.5 if named else 0.2):
                subject = (name, _possessive(name))
            elif others and draw.random() < 0.3:
                subject = draw.choice(others)
            value_first = relation.value_first if draw.random() < 0.25 else []
            wording = draw.choice(value_first or relation.sentences)
            clauses.append(wording.format(n=subject[0], p=subject[1], v=fact.value))
        rest = rest[len(clauses) :]
        joined = clauses[0] if len(clauses) == 1 else ", ".join(clauses[:-1]) + " and " + clauses[-1]
        sentences.append(_capital(joined) + ".")
    return " ".join(sentences)


def _value(draw: random.Random, wordings: Wordings, relation: str) -> str:
    value = wordings.relations[relation].value
    if isinstance(value, dict):
        number = draw.randint(value["from"], value["to"])
        said = spelled(number) if value.get("spelled") and number < 100 and draw.random() < 0.6 else f"{number:,}"
        return f"{said} {value['unit']}" if "unit" in value else said
    drawn = DRAWN.get(value)
    return drawn(draw) if drawn is not None else draw.choice(wordings.values[value])


def _possessive(name: str) -> str:
    return f"{name}'" if name.endswith("s") else f"{name}'s"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
