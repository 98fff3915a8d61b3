"""Rows as Parquet, whose columns the `datasets` library and others know by type."""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any

from aag_hf.data.jsonl import encode_row, written_whole
from aag_hf.errors import InputError
from aag_hf.extras import optional

if TYPE_CHECKING:
    import pyarrow

# Rows in memory at a time.
_BATCH = 256
_IS_JSON = {b"encoding": b"json"}


def parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a Parquet file, each with its place.

    Raises:
        InputError: It is missing or damaged.
    """
    with optional():
        import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for name in file.schema_arrow.names:
                if file.schema_arrow.names.count(name) > 1:
                    raise InputError(f"{path}: column {name!r} stands twice: keep one.")
            encoded = _json_names(file.schema_arrow)
            in_passages = _json_names(_passage_type(file.schema_arrow))
            for batch in file.iter_batches(_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    _decode(row, encoded)
                    for passage in (row.get("ctxs") or []) if in_passages else []:
                        # A passage that is null is refused where records are checked.
                        _decode(passage or {}, in_passages)
                    yield f"{path}, row {number}", without_nan(row)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        # Damaged data gives an OSError without a number; one with a number is the system's and names the file.
        if isinstance(error, InputError) or getattr(error, "errno", None) is not None:
            raise
        raise InputError(f"{path}: not a whole Parquet file ({error}): make it again.") from None


def write_parquet(rows: Iterable[dict[str, Any]], path: Path, before: Callable[[], None]) -> None:
    """Write rows to `path`, which appears only when it is complete.

    The fields of a record have types of their own; all others become columns of JSON, which may hold anything.

    Args:
        rows: Each is done with before the next is asked for.
        path: The file.
        before: Called when all is written, before the file appears.

    Raises:
        InputError: A row cannot be written as JSON.
    """
    import pyarrow
    import pyarrow.parquet

    # Twice through the rows: which columns there are is known at the end alone.
    with TemporaryFile(dir=path.parent) as spooled:
        names: dict[str, None] = {}
        of_passages: dict[str, None] = {}
        for row in rows:
            names.update(dict.fromkeys(row))
            for passage in row.get("ctxs") or []:
                of_passages.update(dict.fromkeys(passage))
            spooled.write(encode_row(row))
        spooled.seek(0)
        passage = _passage_schema(of_passages)
        schema = pyarrow.schema([(name, _type_of(name, passage)) for name in names])
        encoded, in_passages = _json_names(schema), _json_names(passage)
        with written_whole(path) as file:
            with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
                for batch in _batches(spooled):
                    for row in batch:
                        _encode(row, encoded)
                        for ctx in row.get("ctxs") or []:
                            _encode(ctx, in_passages)
                    writer.write_table(pyarrow.Table.from_pylist(batch, schema))
            file.flush()
            before()


def without_nan(value: Any) -> Any:
    """`value` with null for NaN and infinity, as rows of JSON files have it."""
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return list(map(without_nan, value))
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _type_of(name: str, passage: "pyarrow.StructType") -> "pyarrow.DataType":
    import pyarrow

    texts = ("id", "question", "target", "compressed_context", "generated_context")
    known = {
        **dict.fromkeys(texts, pyarrow.string()),
        "answers": pyarrow.list_(pyarrow.string()),
        "features": pyarrow.list_(pyarrow.float64()),
        "ctxs": pyarrow.list_(passage),
    }
    return known.get(name, pyarrow.json_())


def _passage_schema(names: Iterable[str]) -> "pyarrow.StructType":
    import pyarrow

    known = {"title": pyarrow.string(), "text": pyarrow.string()}
    known |= {"score": pyarrow.float64(), "has_answer": pyarrow.bool_()}
    # Arrow's own type for JSON cannot stand inside others.
    others = [pyarrow.field(name, pyarrow.string(), metadata=_IS_JSON) for name in names if name not in known]
    return pyarrow.struct([*(pyarrow.field(name, kind) for name, kind in known.items()), *others])


def _passage_type(schema: "pyarrow.Schema") -> "pyarrow.DataType | None":
    import pyarrow

    if "ctxs" not in schema.names or not pyarrow.types.is_list(schema.field("ctxs").type):
        return None
    return schema.field("ctxs").type.value_type


def _json_names(fields: "pyarrow.Schema | pyarrow.DataType | None") -> list[str]:
    import pyarrow

    if fields is None or not (isinstance(fields, pyarrow.Schema) or pyarrow.types.is_struct(fields)):
        return []
    wanted = _IS_JSON.items()
    return [f.name for f in fields if f.type == pyarrow.json_() or wanted <= (f.metadata or {}).items()]


def _encode(row: dict[str, Any], names: list[str]) -> None:
    for name in names:
        if name in row:
            row[name] = json.dumps(row[name], ensure_ascii=False)
    # An integer may be one that no float is equal to.
    if "score" in row and "score" not in names:
        row["score"] = float(row["score"])
    if "features" in row:
        row["features"] = list(map(float, row["features"]))


def _decode(row: dict[str, Any], names: list[str]) -> None:
    for name in names:
        if row.get(name) is not None:
            row[name] = json.loads(row[name])


def _batches(lines: IO[bytes]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for line in lines:
        batch.append(json.loads(line))
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
