"""Whatever stands in a file of records or in a recipe, it is read, or refused as the user's input."""

import gzip
import json
from contextlib import suppress

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.compress import CompressOptions
from aag_hf.cli.retrieve import RetrieveOptions
from aag_hf.cli.train import TrainOptions
from aag_hf.data import read_records, write_records
from aag_hf.data.pool import read_pool
from aag_hf.errors import InputError

# With halves of characters, which JSON can escape and UTF-8 cannot hold.
texts = st.text(st.characters(exclude_categories=()), max_size=12)
numbers = st.integers() | st.floats() | st.just(10**400)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
passages = st.fixed_dictionaries(
    {"title": texts, "text": texts}, optional={"score": numbers, "has_answer": st.booleans() | values, "more": values}
)
rows = st.fixed_dictionaries(
    {"question": texts, "answers": st.lists(texts, max_size=2)},
    optional={
        "id": texts | st.integers(),
        "target": texts,
        "ctxs": st.lists(passages | values, max_size=2),
        "positive_ctxs": values,
        "features": st.lists(numbers, max_size=3) | values,
        "compressed_context": texts | values,
        "note": values,
    },
)
names = st.sampled_from(["r.jsonl", "r.jsonl.gz", "r.json", "r.json.gz"])


def records_or_one_error(path):
    try:
        records = read_records(path)
    except InputError as error:
        assert path.name in str(error)
        return
    copy = path.with_name("copy.jsonl")
    write_records(records, copy)
    for line in copy.read_text(encoding="utf-8").split("\n")[:-1]:
        json.loads(line, parse_constant=pytest.fail)
    assert read_records(copy) == records


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("read")


@given(data=st.binary(max_size=200), name=names, packed=st.booleans())
def test_any_bytes(folder, data, name, packed):
    path = folder / name
    path.write_bytes(gzip.compress(data) if packed else data)
    records_or_one_error(path)


@given(found=st.lists(rows | values, max_size=4), name=names, prefix=st.sampled_from(["", "\ufeff", "\r\n"]))
def test_any_json(folder, found, name, prefix):
    ending = "\r\n" if prefix else "\n"
    text = ending.join(map(json.dumps, found)) if ".jsonl" in name else json.dumps(found)
    data = (prefix + text).encode()
    path = folder / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    records_or_one_error(path)


@given(found=st.lists(passages | values, max_size=4))
def test_any_pool(folder, found):
    path = folder / "pool.jsonl"
    path.write_text("\n".join(map(json.dumps, found)))
    try:
        read_pool([path])
    except InputError as error:
        assert path.name in str(error)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, '{"a": 1, "a": 2}', "NaN", "-Infinity"])
def test_what_json_allows_or_python_adds_and_no_record_needs(folder, text):
    path = folder / "odd.jsonl"
    path.write_text(text + "\n")
    with pytest.raises(InputError, match=r"odd\.jsonl, line 1: "):
        read_records(path)


def read_recipe_or_one_error(path, command, options):
    with suppress(InputError):
        parse_arguments(command, (options,), ["--config", str(path)])


commands = st.sampled_from([("compress", CompressOptions), ("retrieve", RetrieveOptions), ("train", TrainOptions)])
settings = texts | numbers | st.booleans() | st.none() | st.lists(texts | numbers, max_size=3) | values


@given(command=commands, data=st.data(), is_section=st.booleans())
def test_any_recipe(folder, command, data, is_section):
    name, options = command
    keys = st.sampled_from(list(options.__dataclass_fields__)) | texts
    recipe = data.draw(st.dictionaries(keys, settings, max_size=4))
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({name: recipe} if is_section else recipe))
    read_recipe_or_one_error(path, name, options)


@given(
    command=commands, text=st.binary(max_size=60) | st.text("{}[]:-,&*!|>'\"#%@ \n\tab1", max_size=60).map(str.encode)
)
def test_any_bytes_as_a_recipe(folder, command, text):
    path = folder / "recipe.yaml"
    path.write_bytes(text)
    read_recipe_or_one_error(path, *command)
