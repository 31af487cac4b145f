"""Typed Parquet shards with a journal and a manifest, written so that a kill costs one shard.

A shard is written under another name and renamed when it is whole; the journal then gets its checksum. The next call
keeps every shard whose checksum holds, and goes on behind it. The manifest is written last: with it, all shards are
there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.table import table_cast

from evqa._files import fsync_folder, write_json
from evqa.errors import DataError

__all__ = ["MANIFEST", "Publication", "write_shards"]

MANIFEST = "manifest.json"

_JOURNAL = "shards.jsonl"
_ROW_GROUP_ROWS, _ROW_GROUP_BYTES = 1024, 64 << 20


@dataclasses.dataclass(frozen=True)
class Publication:
    """What is to be published: everything that the content of the shards depends on."""

    corpus: str
    config: str
    source: str
    media: bool
    max_shard_bytes: int

    def same_as(self, other: Any) -> bool:
        """Whether a manifest or journal was begun for the same publication."""
        return other == dataclasses.asdict(self)


def write_shards(
    folder: Path,
    publication: Publication,
    splits: Mapping[str, Callable[[int], Iterable[pa.Table]]],
    columns: datasets.Features,
    about: Mapping[str, Any],
    *,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Write ``<split>-00000.parquet`` and so on, and ``manifest.json`` at the end.

    Args:
        folder: Where to; what an interrupted call left there is kept and continued.
        publication: What it is.
        splits: Split -> the tables of its rows, from a row on.
        columns: The features of all tables.
        about: More for the manifest.
        say: Told what happens.

    Returns:
        The manifest.

    Raises:
        DataError: The folder holds another publication.
    """
    folder.mkdir(parents=True, exist_ok=True)
    begun = _begin(folder, publication)
    shards: dict[str, list[dict[str, Any]]] = {split: [] for split in splits}
    for shard in begun:
        if shard["split"] not in shards or not _is_whole(folder / shard["file"], shard):
            continue
        found = shards[shard["split"]]
        if shard["first"] == sum(one["rows"] for one in found):  # nothing behind a gap is of use
            found.append(shard)
    kept = sum(map(len, shards.values()))
    if kept:
        say(f"{folder}: {kept} shards are there already")
    schema = columns.arrow_schema
    for split, tables in splits.items():
        first = sum(shard["rows"] for shard in shards[split])
        for content in _cut(tables(first), publication.max_shard_bytes):
            name = f"{split}-{len(shards[split]):05d}.parquet"
            rows = _write(folder / name, content, schema)
            shard = {"split": split, "file": name, "first": first, "rows": rows, **_checksum(folder / name)}
            _append(folder / _JOURNAL, shard)
            shards[split].append(shard)
            first += rows
            say(f"{folder / name}: {rows} rows, {shard['bytes'] / 1e6:.1f} MB")
    manifest = {
        **dataclasses.asdict(publication),
        **about,
        "splits": {
            split: {
                "rows": sum(shard["rows"] for shard in listed),
                "shards": [{key: shard[key] for key in ("file", "rows", "bytes", "sha256")} for shard in listed],
            }
            for split, listed in shards.items()
            if listed
        },
        "features": columns.to_dict(),
    }
    write_json(folder / MANIFEST, manifest)
    return manifest


def _begin(folder: Path, publication: Publication) -> list[dict[str, Any]]:
    """The shards that an earlier call journalled."""
    journal = folder / _JOURNAL
    lines = journal.read_text("utf-8").splitlines() if journal.exists() else []
    records = []
    for line in lines:
        try:
            records.append(json.loads(line))
        except ValueError:  # the last line of a process that was killed; its shard is written again
            break
    if records and not publication.same_as(records[0]):
        raise DataError(
            "the folder holds shards of other data, of other settings or of another version: give another --work, "
            "or delete it", file=folder,
        )  # fmt: skip
    if not records:
        for left in folder.glob("*.parquet*"):
            raise DataError(f"the folder holds {left.name}, which no journal speaks of", file=folder)
        journal.unlink(missing_ok=True)
        _append(journal, dataclasses.asdict(publication))
    elif len(records) < len(lines) or not journal.read_bytes().endswith(b"\n"):
        text = "".join(json.dumps(record) + "\n" for record in records)
        journal.write_text(text, "utf-8")
    return records[1:]


def _cut(tables: Iterable[pa.Table], most: int) -> Iterator[Iterator[pa.Table]]:
    """Groups of tables, each of at least ``most`` bytes but for the last; a group must be used up before the next."""
    stream = iter(tables)
    ahead = next(stream, None)

    def group() -> Iterator[pa.Table]:
        nonlocal ahead
        size = 0
        while ahead is not None and size < most:
            table, ahead = ahead, next(stream, None)
            size += table.nbytes
            yield table

    while ahead is not None:
        yield group()


def _write(path: Path, tables: Iterable[pa.Table], schema: pa.Schema) -> int:
    unfinished = path.with_name(f"{path.name}.incomplete")
    rows, held, size = 0, [], 0
    with open(unfinished, "wb") as out:
        with pq.ParquetWriter(out, schema, compression="snappy") as writer:
            for table in tables:
                held.append(table_cast(table, schema))
                rows, size = rows + table.num_rows, size + table.nbytes
                if size >= _ROW_GROUP_BYTES or sum(one.num_rows for one in held) >= _ROW_GROUP_ROWS:
                    writer.write_table(pa.concat_tables(held))
                    held, size = [], 0
            if held:
                writer.write_table(pa.concat_tables(held))
        out.flush()
        os.fsync(out.fileno())
    os.replace(unfinished, path)
    fsync_folder(path.parent)
    return rows


def _checksum(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _is_whole(path: Path, shard: Mapping[str, Any]) -> bool:
    if not path.is_file() or path.stat().st_size != shard["bytes"]:
        return False
    return _checksum(path)["sha256"] == shard["sha256"]


def _append(path: Path, record: Mapping[str, Any]) -> None:
    with open(path, "a", encoding="utf-8") as out:
        out.write(json.dumps(record) + "\n")
        out.flush()
        os.fsync(out.fileno())
