"""Questions about countries, from the package countryinfo. A small language model knows part of these facts."""

import random
import unicodedata
from typing import Any

from aag_hf.data.answers import has_answer
from aag_hf.errors import InputError

_DEV_SHARE, _TEST_SHARE = 0.10, 0.16

WORDINGS = {
    "capital": (
        "What is the capital of {}?",
        "Which city is the capital of {}?",
        "What is the capital city of {}?",
        "Name the capital of {}.",
    ),
    "demonym": (
        "What are the people of {} called?",
        "What do you call someone from {}?",
        "What is the demonym of {}?",
        "A person from {} is known as what?",
    ),
    "continent": (
        "On which continent is {}?",
        "Which continent does {} belong to?",
        "{} is part of which continent?",
        "Name the continent of {}.",
    ),
    "subregion": (
        "In which subregion of the world is {}?",
        "Which part of its continent does {} lie in?",
        "To which subregion does {} belong?",
        "What is the United Nations subregion of {}?",
    ),
    "currency": (
        "What is the currency code of {}?",
        "Which three-letter currency code is used in {}?",
        "What is the ISO code of the money of {}?",
        "Name the currency code of {}.",
    ),
    "domain": (
        "What is the internet domain of {}?",
        "Which top-level domain do websites of {} use?",
        "What country-code domain does {} have?",
        "Web addresses of {} end in what?",
    ),
    "calling_code": (
        "What is the international calling code of {}?",
        "Which dialling code does {} have?",
        "What telephone code do you dial to call {}?",
        "Name the country calling code of {}.",
    ),
}

_DOCUMENT = (
    "{name} lies in {subregion}, on the continent of {continent}. Its capital is {capital}, and its people are called "
    "{demonym}. Its currency code is {currency}, its calling code is {calling_code} and its internet domain is "
    "{domain}."
)

# The package knows one region for both Americas.
_SOUTH_AMERICA = {"AR", "BO", "BR", "CL", "CO", "EC", "FK", "GF", "GS", "GY", "PE", "PY", "SR", "UY", "VE"}

# The package lists codes in alphabetical order; these are the codes in everyday use.
_EVERYDAY_CURRENCY = {"CH": "CHF", "CL": "CLP", "CU": "CUP", "SV": "USD", "UY": "UYU"}

_OTHER_CAPITAL_NAMES = {"KZ": ["Astana"], "SM": ["San Marino"], "UA": ["Kiev"], "US": ["Washington"]}

_THE_BEFORE = ("Central", "Czech", "Democratic", "Dominican", "Federated", "Isle of", "Republic", "United", "Vatican")
_THE_FOR = (
    "Islands",
    "Territory",
    "Lands",
    "Bahamas",
    "Gambia",
    "Maldives",
    "Netherlands",
    "Philippines",
    "Seychelles",
)

# States that have ceased to exist but are still listed.
_FORMER = {"CS"}


def load_countries(seed: int = 29) -> dict[str, list[dict[str, Any]]]:
    """Records about every country, split by country.

    Args:
        seed: Decides the wording of each question and the split of each country.

    Returns:
        ``{"train": …, "dev": …, "test": …}`` with one question per relation and country. A country is in exactly one
        split. Records also have `relation`, `entity` and `dataset`. `ctxs` holds the country's own document.

    Raises:
        InputError: countryinfo is not installed.
    """
    countries = _facts()
    random.Random(seed).shuffle(countries)
    dev, test = round(_DEV_SHARE * len(countries)), round(_TEST_SHARE * len(countries))
    parts = {"train": countries[dev + test :], "dev": countries[:dev], "test": countries[dev : dev + test]}
    return {
        split: [_record(country, relation, seed) for country in part for relation in WORDINGS]
        for split, part in parts.items()
    }


def country_documents() -> list[dict[str, str]]:
    """One passage ``{title, text}`` per country. It holds the answer to each question about that country.

    Raises:
        InputError: countryinfo is not installed.
    """
    return [_document(country) for country in _facts()]


def _record(country: dict[str, Any], relation: str, seed: int) -> dict[str, Any]:
    identifier = f"countries-{country['code'].lower()}-{relation}"
    wording = random.Random(f"{seed} {identifier}").choice(WORDINGS[relation])
    document, answers = _document(country), country[relation]
    question = wording.format(country["in_sentence"])
    return {
        "id": identifier,
        "question": question[0].upper() + question[1:],
        "answers": answers,
        "ctxs": [{**document, "has_answer": has_answer(document["text"], answers)}],
        "relation": relation,
        "entity": country["name"],
        "dataset": "countries",
    }


def _document(country: dict[str, Any]) -> dict[str, str]:
    facts = {relation: country[relation][0] for relation in WORDINGS}
    text = _DOCUMENT.format(name=country["in_sentence"], **facts)
    return {"title": country["name"], "text": text[0].upper() + text[1:]}


def _facts() -> list[dict[str, Any]]:
    """Countries with every relation known, by name. Each relation has all acceptable answers, the usual one first."""
    try:
        from countryinfo import all_countries
    except ModuleNotFoundError:
        raise InputError("the countries data set needs countryinfo: run `pip install countryinfo`.") from None
    facts = {}
    for entry in (country.info() for country in all_countries()):
        code = (entry.get("ISO") or {}).get("alpha2")
        fields = ("capital", "demonym", "region", "subregion", "currencies", "callingCodes", "tld")
        if code and code not in _FORMER and all(_texts(entry.get(field)) for field in fields):
            facts[code] = _country(dict(entry), code)
    return sorted(facts.values(), key=lambda country: country["name"])


def _country(entry: dict[str, Any], code: str) -> dict[str, Any]:
    name = entry["name"].removeprefix("The ")
    continent = _continent(entry["region"], code)
    currencies = _texts(entry["currencies"])
    everyday = _EVERYDAY_CURRENCY.get(code, currencies[0])
    return {
        "code": code,
        "name": name,
        "in_sentence": f"the {name}" if name.startswith(_THE_BEFORE) or name.endswith(_THE_FOR) else name,
        "capital": _spellings([*_texts(entry["capital"]), *_OTHER_CAPITAL_NAMES.get(code, [])]),
        "demonym": _with_plurals([part.strip() for part in entry["demonym"].split(",")]),
        "continent": [continent, *(["Americas", "America"] if entry["region"] == "Americas" else [])],
        "subregion": _subregion(entry["subregion"]),
        "currency": [everyday, *(code for code in currencies if code != everyday)],
        "calling_code": [form for number in _texts(entry["callingCodes"]) for form in (f"+{number}", number)],
        "domain": [domain for domain in _texts(entry["tld"]) if domain.isascii()],
    }


def _continent(region: str, code: str) -> str:
    if region != "Americas":
        return region
    return "South America" if code in _SOUTH_AMERICA else "North America"


def _subregion(name: str) -> list[str]:
    name = name.replace("South-Eastern", "South-eastern")
    forms = [name, name.replace("ern ", " ")]
    if name == "South-eastern Asia":
        forms += ["Southeast Asia", "Southeastern Asia"]
    if name == "Latin America and the Caribbean":
        forms += ["Latin America"]
    return list(dict.fromkeys(forms))


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str) and text.strip()]


def _spellings(names: list[str]) -> list[str]:
    plain = ["".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c)) for name in names]
    short = [name.replace("Saint ", "St. ") for name in names]
    return list(dict.fromkeys([*names, *plain, *short]))


def _with_plurals(demonyms: list[str]) -> list[str]:
    return [*demonyms, *(f"{name}s" for name in demonyms if not name.endswith(("s", "sh", "ch", "se")))]
