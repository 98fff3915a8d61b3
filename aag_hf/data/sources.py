"""The sources of rows: a file, a folder, or a data set on disk, in memory or on the Hub."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aag_hf.data.bad_rows import BadRows
from aag_hf.data.files import SUFFIXES, file_stem, read_rows
from aag_hf.data.parquet import without_nan
from aag_hf.errors import InputError
from aag_hf.manifest import MANIFEST

Rows = Iterable[tuple[str, Any]]


def open_source(
    source: str, split: str | None, bad: BadRows, config_name: str | None = None, revision: str | None = None
) -> tuple[str, Rows]:
    """The name of a source, from which rows without an id get one, and its rows with the place of each.

    Args:
        source: A file; a folder with one file per split, or one that ``Dataset.save_to_disk`` wrote; or the id of a
            data set on the Hub.
        split: Which split of a folder or a data set on the Hub.
        bad: Counts rows that cannot be read.
        config_name: Which configuration of a data set on the Hub.
        revision: Which branch, tag or commit of it.

    Raises:
        InputError: There is no such source or split, or a configuration or revision is asked of what is not on the Hub.
    """
    path = Path(source)
    if (config_name or revision) and path.exists():
        raise InputError(f"{source}: lies here: only data sets on the Hub have a configuration and a revision.")
    if path.is_dir():
        return _open_folder(path, split, bad)
    if path.is_file() or source.endswith(SUFFIXES):
        if split is not None:
            raise InputError(f"{source}: split {split!r} asked of a single file: leave split out or give the folder.")
        return file_stem(path), read_rows(path, bad)
    if source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise InputError(f"{source}: no such file or folder.")
    return _open_hub(source, split, config_name, revision)


def _open_folder(folder: Path, split: str | None, bad: BadRows) -> tuple[str, Rows]:
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        from datasets import load_from_disk

        try:
            loaded = load_from_disk(str(folder))
        except Exception as error:
            # On a damaged folder its reader may raise anything.
            raise InputError(f"{folder}: not a whole data set saved to disk ({error!r}): save it again.") from error
        return _pick_split(loaded, folder.name, str(folder), split)
    names = (file for file in sorted(folder.iterdir()) if file.name.endswith(SUFFIXES))
    files = {file_stem(file): file for file in names if not file.name.endswith(MANIFEST)}
    if split not in files:
        known = ", ".join(files) or "none"
        if split is None:
            raise InputError(f"{folder}: is a folder with a file for each split ({known}): name one of its files.")
        raise InputError(f"{folder}: no file for split {split!r}: expected one of its splits ({known}).")
    return split, read_rows(files[split], bad)


def _open_hub(name: str, split: str | None, config_name: str | None, revision: str | None) -> tuple[str, Rows]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        loaded = load_dataset(name, config_name, revision=revision)
    except (DatasetsError, HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise InputError(f"{name}: neither a file here nor a data set that the Hub gives: {error}") from None
    return _pick_split(loaded, name.rpartition("/")[2], name, split)


def _pick_split(loaded: Any, stem: str, where: str, split: str | None) -> tuple[str, Rows]:
    if not isinstance(loaded, dict):
        if split is not None:
            raise InputError(f"{where}: split {split!r} asked of a data set without splits: leave split out.")
        return stem, dataset_rows(loaded, where)
    if split is None and len(loaded) == 1:
        split = next(iter(loaded))
    if split not in loaded:
        raise InputError(f"{where}: has no split {split!r}: pass one of {', '.join(loaded)}.")
    return f"{stem}-{split}", dataset_rows(loaded[split], f"{where}, split {split}")


def dataset_rows(dataset: Any, where: str) -> Rows:
    """The rows of a `datasets.Dataset`; `where` names it in messages.

    Raises:
        InputError: A row cannot be read.
    """
    rows = iter(dataset)
    for number in itertools.count(1):
        try:
            row = next(rows, None)
        except Exception as error:
            raise InputError(f"{where}, row {number}: cannot be read: {error!r}: make the data set again.") from error
        if row is None:
            return
        yield f"{where}, row {number}", without_nan(row)
