"""Data set cards, written from the files of a folder and their manifests."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from aag_hf.data.files import SUFFIXES, file_stem, read_rows
from aag_hf.errors import InputError
from aag_hf.hub.cards import OURS, replaceable_metadata, without_folder
from aag_hf.manifest import MANIFEST, Manifest
from aag_hf.markdown import in_code

TEMPLATE = """\
---
{{ card_data }}
---

# {{ repository }}

Records for answering questions, made with [aag-hf](https://pypi.org/project/aag-hf).

```python
from datasets import load_dataset

{% for name in configs %}print(load_dataset("{{ repository }}", "{{ name }}"))
{% endfor %}```

| file | rows | fields | made by |
|---|---|---|---|
{% for file in files %}| {{ file.name }} | {{ file.rows }} | {{ file.fields }} | {{ file.made_by }} |
{% endfor %}
## Limits

The licence is that of the sources: name it as `license` in the metadata above. Generated contexts come from a language
model's memory: they can be wrong.

{{ ours }}
"""


@dataclass
class Contents:
    """How many rows a file has, and the fields of these in their order."""

    rows: int = 0
    fields: dict[str, None] = field(default_factory=dict)

    def counting(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The same rows, counted as they pass."""
        for row in rows:
            self.rows += 1
            self.fields.update(dict.fromkeys(row))
            yield row


@dataclass
class DataFile:
    """What a card tells of a file: `datasets` knows it as `split`, and `made_by` are its command's settings."""

    name: str
    split: str
    rows: int
    fields: list[str]
    made_by: list[str]


def data_card(folder: str | Path, repository: str, known: Mapping[str, Contents] | None = None) -> DatasetCard:
    """The card of a folder of records. Metadata that somebody added to a card of ours there, such as a licence, stays.

    Args:
        folder: Holds the files, and maybe their manifests.
        repository: Its name on the Hub.
        known: The contents of some files, by name. The others are read.

    Raises:
        InputError: There is no such file, one is damaged, or the names of two give the same name of a split.
    """
    folder = Path(folder)
    paths = [path for path in sorted(folder.glob("*")) if path.name.endswith(SUFFIXES)]
    known = known or {}
    files = [
        _described(path, known.get(path.name) or _read(path)) for path in paths if not path.name.endswith(MANIFEST)
    ]
    if not files:
        raise InputError(f"{folder}: holds no file of records: expected names that end in {', '.join(SUFFIXES)}.")
    if twice := [name for name, count in Counter(file.split for file in files).items() if count > 1]:
        raise InputError(f"{folder}: several files would be the split {twice[0]!r}: rename all but one.")
    # Files with the same fields are splits of one set, as `datasets` loads them. Sets of records come first.
    sets: dict[tuple[str, ...], list[DataFile]] = {}
    for file in sorted(files, key=lambda file: "question" not in file.fields):
        sets.setdefault((Path(file.name.removesuffix(".gz")).suffix, *sorted(file.fields)), []).append(file)
    configs = [
        {
            "config_name": members[0].split,
            "data_files": [{"split": file.split, "path": file.name} for file in members],
            "default": number == 0,
        }
        for number, members in enumerate(sets.values())
    ]
    ours = {"task_categories": ["question-answering"], "tags": ["aag-hf"], "configs": configs}
    return DatasetCard.from_template(
        DatasetCardData(**{"license": "unknown", **(replaceable_metadata(folder) or {}), **ours}),
        template_str=TEMPLATE,
        repository=repository,
        files=[{name: _cell(value) for name, value in vars(file).items()} for file in files],
        configs=[config["config_name"] for config in configs],
        ours=OURS,
    )


def _read(path: Path) -> Contents:
    contents = Contents()
    for _ in contents.counting(_objects(path)):
        pass
    return contents


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    for where, row in read_rows(path):
        if not isinstance(row, dict):
            raise InputError(f"{where}: expected a JSON object, found a JSON {type(row).__name__}.")
        yield row


def _described(path: Path, contents: Contents) -> DataFile:
    manifest = path.with_name(f"{path.name}.{MANIFEST}")
    made_by = Manifest.read(manifest) if manifest.is_file() else Manifest({})
    told = made_by.settings | {name: source["path"] for name, source in made_by.inputs.items()}
    return DataFile(
        name=path.name,
        split=re.sub(r"\W", "_", file_stem(path)),
        rows=contents.rows,
        fields=list(contents.fields),
        made_by=[f"{name} {without_folder(value)}" for name, value in told.items() if value is not None],
    )


def _cell(value: Any) -> str:
    """Data between backticks, fit for a table."""
    return ", ".join(f"`{in_code(item)}`" for item in (value if isinstance(value, list) else [value]))
