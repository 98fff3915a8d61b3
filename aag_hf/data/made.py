"""Made-up countries: any number of documents with questions, of which no language model knows anything."""

import random
from typing import Any

from aag_hf.data.countries import WORDINGS
from aag_hf.data.invented import invented_word

_NAME_ENDS = ["land", "ia", "stan", "mark", " Islands"]
_DEMONYM_ENDS = ["n", "an", "ish", "i", "ese", "er"]
_CONTINENTS = {
    "Africa": ["Northern Africa", "Western Africa", "Eastern Africa", "Middle Africa", "Southern Africa"],
    "Asia": ["Western Asia", "Central Asia", "Southern Asia", "Eastern Asia", "South-eastern Asia"],
    "Europe": ["Northern Europe", "Western Europe", "Eastern Europe", "Southern Europe"],
    "North America": ["Northern America", "Central America", "Caribbean"],
    "South America": ["South America"],
    "Oceania": ["Polynesia", "Melanesia", "Micronesia", "Australia and New Zealand"],
}
_LETTERS = "abcdefghijklmnopqrstuvwxyz"

# {n} is the country or a word for it, {p} its possessive, {v} the answer.
_SENTENCES = {
    "capital": (
        "{p} capital is {v}",
        "the capital of {n} is {v}",
        "{p} capital city is named {v}",
        "{n} is ruled from the city of {v}",
        "the government of {n} sits in {v}",
    ),
    "demonym": (
        "{p} people are called {v}",
        "someone from {n} is known as {v}",
        "the people of {n} call themselves {v}",
        "{p} inhabitants go by the name {v}",
    ),
    "continent": (
        "{n} is on the continent of {v}",
        "{n} belongs to {v}",
        "{p} continent is {v}",
        "{n} is a country in {v}",
    ),
    "subregion": (
        "{n} lies in {v}",
        "{n} is found in the subregion {v}",
        "{p} part of the world is {v}",
        "{n} is one of the countries of {v}",
    ),
    "currency": (
        "{p} currency code is {v}",
        "money in {n} has the code {v}",
        "the code of {p} currency is {v}",
        "people in {n} pay in {v}",
    ),
    "domain": (
        "{p} internet domain is {v}",
        "websites in {n} end in {v}",
        "the top-level domain of {n} is {v}",
        "{n} has the web domain {v}",
    ),
    "calling_code": (
        "{p} calling code is {v}",
        "the telephone code of {n} is {v}",
        "one dials {v} to call {n}",
        "phone numbers in {n} begin with {v}",
    ),
}


def made_countries(count: int, seed: int = 29) -> list[dict[str, Any]]:
    """Records about made-up countries: one document per country, and one question per fact in it.

    They teach a hypernetwork to read documents, since an answer stands in the document and nowhere else. The wording
    varies. Only continents and their parts are taken from the real world.

    Args:
        count: How many countries.
        seed: Seed of everything that is drawn.

    Returns:
        Records like those of [`~aag_hf.data.load_countries`].
    """
    draw = random.Random(f"made countries {seed}")  # nosec B311 # not for secrets
    records: list[dict[str, Any]] = []
    names: set[str] = set()
    while len(names) < count:
        name = invented_word(draw) + (draw.choice(_NAME_ENDS) if draw.random() < 0.5 else "")
        if name in names:
            continue
        names.add(name)
        records += _records(draw, name, len(names))
    return records


def _records(draw: random.Random, name: str, number: int) -> list[dict[str, Any]]:
    in_sentence = f"the {name}" if name.endswith("Islands") else name
    facts = _facts(draw)
    told = draw.sample(sorted(facts), draw.randint(3, len(facts)))
    document = {"title": name, "text": _text(draw, in_sentence, [(relation, facts[relation]) for relation in told])}
    records = []
    for relation in told:
        question = draw.choice(WORDINGS[relation]).format(in_sentence)
        records.append(
            {
                "id": f"made-countries-{number}-{relation}",
                "question": question[0].upper() + question[1:],
                "answers": [facts[relation]],
                "ctxs": [{**document, "has_answer": True}],
                "relation": relation,
                "entity": name,
                "dataset": "made_countries",
            }
        )
    return records


def _facts(draw: random.Random) -> dict[str, str]:
    continent = draw.choice(sorted(_CONTINENTS))
    return {
        "capital": invented_word(draw),
        "demonym": invented_word(draw) + draw.choice(_DEMONYM_ENDS),
        "continent": continent,
        "subregion": draw.choice(_CONTINENTS[continent]),
        "currency": "".join(draw.choices(_LETTERS.upper(), k=3)),
        "domain": "." + "".join(draw.choices(_LETTERS, k=2)),
        "calling_code": "+" + "".join(draw.choices("123456789", k=draw.choice([2, 3, 3]))),
    }


def _text(draw: random.Random, name: str, facts: list[tuple[str, str]]) -> str:
    """Sentences of one to three facts, of which the first names the country."""
    sentences: list[str] = []
    rest = list(facts)
    while rest:
        clauses: list[str] = []
        for relation, value in rest[: draw.choice([1, 1, 2, 3])]:
            named = not (sentences or clauses) or draw.random() < 0.3
            possessive = f"{name}'" if name.endswith("s") else f"{name}'s"
            subject = (name, possessive) if named else draw.choice([("it", "its"), ("the country", "the country's")])
            wording = draw.choice(_SENTENCES[relation])
            clauses.append(wording.format(n=subject[0], p=subject[1], v=value))
        rest = rest[len(clauses) :]
        joined = clauses[0] if len(clauses) == 1 else ", ".join(clauses[:-1]) + " and " + clauses[-1]
        sentences.append(joined[0].upper() + joined[1:] + ".")
    return " ".join(sentences)
