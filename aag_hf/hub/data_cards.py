"""Data set cards: the content of the files in a folder, and the command that wrote each."""

from collections.abc import Collection, Iterable, Iterator
from itertools import chain, count
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData
from huggingface_hub.constants import REPOCARD_NAME

from aag_hf.data.files import SUFFIXES, file_stem
from aag_hf.hub.cards import NAMELESS, OURS, replaceable_metadata, table_cell, without_folder, write_card
from aag_hf.markdown import in_code

# The card keeps here what it says of each file, so that no file is read again when another is added.
FILES = "aag_files"
FIELDS = {
    "id": "unique; files join by it",
    "question": "the question",
    "answers": "all acceptable answers, at least one",
    "target": "the answer to train on",
    "ctxs": "passages, best first: `title`, `text`, and maybe `score` and `has_answer`",
    "compressed_context": "what is left of the passages once compressed for the question",
    "generated_context": "what a language model wrote about the question from memory",
    "generated_contexts": "several of these: `text`, and `score`, the mean log-probability of its tokens",
    "features": "the question's features, as numbers",
    "title": "a passage's title",
    "text": "a passage's text",
}
SIZES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M", 10**7: "1M<n<10M"}
TEMPLATE = """\
---
{{ card_data }}
---

# {{ title }}

{{ rows }} rows in {{ files|length }} {{ "file" if files|length == 1 else "files" }}, written by
[aag-hf](https://pypi.org/project/aag-hf): records for answering questions.

```python
from datasets import load_dataset

{% for name, splits in configs %}print(load_dataset("{{ title }}", "{{ name }}"))  # {{ splits }}
{% endfor %}```

| file | rows | written by | settings |
|---|---|---|---|
{% for name, file in files.items() %}| `{{ name }}` | {{ file.rows }} | `{{ file.command }}` | {{ file.cell }} |
{% endfor %}
| field | |
|---|---|
{% for name, meaning in fields.items() %}| `{{ name }}` | {{ meaning }} |
{% endfor %}
## Limits

The licence is that of the sources, which the commands do not know: name it as `license` in the metadata above.
{% if machine_written %}Written contexts come from a language model's memory: they can be wrong.
{% endif %}
{{ ours }}
"""


class Contents(Iterable[dict[str, Any]]):
    """Rows that pass through, and the facts that a card needs of them.

    Args:
        rows: The rows. They are read once.

    Attributes:
        rows: How many rows there were so far.
        fields: The names of their fields.
    """

    def __init__(self, rows: Iterable[dict[str, Any]]):
        self._source = rows
        self.rows = 0
        self.fields: dict[str, None] = {}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self._source:
            self.rows += 1
            self.fields.update(dict.fromkeys(row))
            yield row

    def count(self) -> "Contents":
        """Read all rows, and return itself."""
        for _ in self:
            pass
        return self


def leave_data_card(
    path: str | Path, rows: Iterable[dict[str, Any]], command: str, settings: dict[str, Any] | None = None
) -> None:
    """Add a file that a command wrote to the data set card of its folder.

    The card names every such file, as splits for `datasets.load_dataset`. Somebody's own README.md stays. A folder that
    holds more than data gets no card.

    Args:
        path: The file, JSON Lines or Parquet.
        rows: Its rows, or [`Contents`] through which they have passed.
        command: The command that wrote it, such as ``"aag retrieve"``.
        settings: The settings of the command. Of paths, the card shows only the last part.
    """
    path = Path(path)
    folder = path.parent
    if not all(_is_data(entry) for entry in folder.iterdir()):
        return
    contents = rows if isinstance(rows, Contents) else Contents(rows).count()
    metadata = replaceable_metadata(folder) or {}
    known = metadata.pop(FILES, None)
    files = {name: file for name, file in (known or {}).items() if (folder / name).is_file()}
    files[path.name] = {
        "rows": contents.rows,
        "fields": list(contents.fields),
        "command": command,
        "settings": {name: without_folder(value) for name, value in (settings or {}).items()},
    }
    write_card(_data_card(dict(sorted(files.items())), metadata), folder)


def _data_card(files: dict[str, dict[str, Any]], metadata: dict[str, Any]) -> DatasetCard:
    """The card of files with their `rows`, `fields`, `command` and `settings`, and more metadata."""
    splits = _splits(files)
    groups = _groups(files, splits)
    rows = sum(file["rows"] for file in files.values())
    present = dict.fromkeys(field for file in files.values() for field in file["fields"])
    ours = {
        "task_categories": ["question-answering"] if "question" in present else None,
        "size_categories": next((size for limit, size in SIZES.items() if rows < limit), "10M<n<100M"),
        "tags": ["aag-hf"],
        "configs": [
            {
                "config_name": name,
                "data_files": [{"split": splits[file], "path": file} for file in members],
                **({"default": True} if position == 0 and len(groups) > 1 else {}),
            }
            for position, (name, members) in enumerate(groups.items())
        ],
        FILES: files,
    }
    # Metadata that somebody added stays, above all the licence.
    data = DatasetCardData(**{"license": "unknown", **metadata, **ours})
    return DatasetCard.from_template(
        data,
        template_str=TEMPLATE,
        title=NAMELESS,
        rows=f"{rows:,}",
        files={in_code(name): file | {"cell": _settings_cell(file["settings"])} for name, file in files.items()},
        configs=[(name, ", ".join(splits[file] for file in members)) for name, members in groups.items()],
        fields={in_code(name): FIELDS.get(name, "as in the source") for name in present},
        machine_written="generated_context" in present,
        ours=OURS,
    )


def _groups(files: dict[str, dict[str, Any]], splits: dict[str, str]) -> dict[str, list[str]]:
    """Files by configuration, records first. `load_dataset` reads files with the same fields as one."""
    by_fields: dict[tuple[bool, tuple[str, ...]], list[str]] = {}
    for name, file in sorted(files.items(), key=lambda item: "question" not in item[1]["fields"]):
        kind = name.endswith(".parquet"), tuple(sorted(file["fields"]))
        by_fields.setdefault(kind, []).append(name)
    first, *others = by_fields.values()
    groups = {"default": first}
    for members in others:
        groups[_free_name("_".join(splits[file] for file in members), groups)] = members
    return groups


def _splits(files: Iterable[str]) -> dict[str, str]:
    """Unique names of splits for the files, of letters, digits and underscores."""
    splits: dict[str, str] = {}
    for file in files:
        letters = (letter if letter.isalnum() else "_" for letter in file_stem(Path(file)))
        splits[file] = _free_name("".join(letters), splits.values())
    return splits


def _free_name(name: str, taken: Collection[str]) -> str:
    numbered = (f"{name}_{number}" for number in count(2))
    return next(free for free in chain([name], numbered) if free not in taken)


def _settings_cell(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} `{table_cell(value)}`" for name, value in settings.items())


def _is_data(entry: Path) -> bool:
    hidden = entry.name.startswith(".")
    return hidden or entry.name == REPOCARD_NAME or entry.name.endswith((*SUFFIXES, ".partial"))
