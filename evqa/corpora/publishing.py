"""Publish a corpus as typed Parquet, so that plain ``datasets`` loads it, without evqa.

``publish`` builds the rows (a row that cannot be read stops it), looks for what is readable but wrong, writes shards
into a work folder, and pushes them with a manifest and the card. What is published is what the corpus' terms allow
(:class:`evqa.corpora.base.Terms`): all of it, the rows without frames, clips and images, or nothing; whoever has the
owner's word says so with ``permission``, which the manifest then holds.

Guarantees:

- after a kill, the same command goes on behind the last whole shard (:mod:`evqa.corpora.shards`); the content of
  shards depends on rows and settings alone, so a resumed publication is the same as one in one go;
- in the repository, the manifest and the card come last (:mod:`evqa.corpora.pushing`): without the manifest of a
  config, its publication is not complete.

Media: clips and images go into the rows. Frames, which the expressions of a video share, go into a config of their own,
``frames``, one row for each video (:class:`evqa.corpora.reading.PublishedFrames`).
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets.table import embed_table_storage, table_cast
from datasets.utils.py_utils import convert_file_size_to_int

import evqa
from evqa._options import parse_options
from evqa.corpora.base import CorpusBuilder, builder_class
from evqa.corpora.checks import validate
from evqa.corpora.pushing import push
from evqa.corpora.shards import Publication, write_shards
from evqa.errors import DataError, EvqaError, MissingDataError
from evqa.types import features

__all__ = ["FRAMES", "main", "publish", "what_may_be_published"]

#: The config that holds the frames of a segmentation corpus.
FRAMES = "frames"

_BATCH = 64
_SHOWN = 20

# Columns that hold media, and what stands in their place in rows without.
_MEDIA = {"video": None, "images": None, "videos": None, "spatial_options": []}


def what_may_be_published(builder: type[CorpusBuilder], config: str, permission: str | None) -> bool:
    """Whether frames, clips and images may go along.

    Args:
        builder: The corpus.
        config: Its config.
        permission: Why its owners' terms do not stand in the way, in a sentence; recorded in the manifest.

    Raises:
        DataError: Nothing of it may be passed on.
    """
    terms = builder.terms(config)
    if permission and permission.strip():
        return True
    if terms.redistribute == "nothing":
        raise DataError(
            f"{builder.corpus} may not be passed on ({terms.licence}). {terms.reason} If you have their word, say so: "
            '--permission "WHO ALLOWED WHAT"'
        )
    return terms.redistribute == "media"


def publish(
    name: str,
    repo: str | None,
    *,
    card: Path,
    work: Path,
    config: str | None = None,
    data_dir: str | None = None,
    permission: str | None = None,
    private: bool = False,
    max_shard_size: str = "500MB",
    accept_problems: bool = False,
    rows_only: bool = False,
    say: Callable[[str], None] = print,
    **options: Any,
) -> Path:
    """Write a corpus' shards and push them.

    Args:
        name: The corpus.
        repo: Dataset repository, ``USER/NAME``; ``None``: write, and push nothing.
        card: The README to put into the repository.
        work: Folder for shards; give the same one again to go on after an interruption.
        config: Config of the corpus.
        data_dir: Folder of the published files.
        permission: See :func:`what_may_be_published`.
        private: Create a private repository.
        max_shard_size: Such as ``"500MB"``; of the rows in memory, so that files are somewhat smaller.
        accept_problems: Publish rows that are readable but wrong (:func:`evqa.corpora.checks.validate`).
        rows_only: Leave frames, clips and images out, also where they may go along.
        say: Told what happens.
        options: Options of the corpus.

    Returns:
        The folder of the shards.

    Raises:
        DataError: The corpus may not be passed on; rows are wrong; the work folder holds something else.
        EvqaError: A row cannot be read.
    """
    cls = builder_class(name)
    media = what_may_be_published(cls, config or "default", permission) and not rows_only
    terms = cls.terms(config or "default")
    builder = cls(config_name=config, data_dir=data_dir, **options)
    builder.download_and_prepare()
    splits = dict(builder.as_dataset().items())
    problems = [f"{split} {problem}" for split, rows in splits.items() for problem in validate(rows)]
    for problem in problems[:_SHOWN]:
        say(problem)
    if problems and not accept_problems:
        raise DataError(
            f"{len(problems)} things are readable but wrong, see above; --accept-problems publishes them", file=data_dir
        )
    if skipped := builder.skipped():
        say(f"{len(skipped)} rows could not be read and are left out")
    what = "with frames, clips and images" if media else f"without frames, clips and images. {terms.reason}"
    say(f"{cls.corpus}: {terms.licence}; {what}")
    publication = Publication(
        cls.corpus, builder.config.name, hashlib.sha256(f"{builder.config_id}{builder.hash}".encode()).hexdigest()[:16],
        media, convert_file_size_to_int(max_shard_size),
    )  # fmt: skip
    about = {
        "licence": terms.licence, "permission": permission, "problems": len(problems), "left_out": len(skipped),
        "evqa": evqa.__version__,
    }  # fmt: skip
    root = Path(builder.config.data_dir) if builder.config.data_dir else None
    parts = {publication.config: {split: _row_tables(rows, media, root) for split, rows in splits.items()}}
    if media and any(_has_folders(rows) for rows in splits.values()):
        parts[FRAMES] = {split: _frame_tables(cls.corpus, rows) for split, rows in splits.items()}
    for part, tables in parts.items():
        kind = next(iter(splits.values())).features if part != FRAMES else features("frames")
        this = dataclasses.replace(publication, config=part)
        write_shards(work / part, this, tables, kind, about, say=say)
        if repo is not None:
            push(work / part, repo, card, private=private, say=say)
    return work


# --------------------------------------------------------------------------------------------- rows
def _row_tables(rows: Any, media: bool, root: Path | None) -> Callable[[int], Iterator[pa.Table]]:
    """The tables of a split from a row on, with media inside or without."""

    def tables(first: int) -> Iterator[pa.Table]:
        arrow = rows.with_format("arrow")
        for start in range(first, len(rows), _BATCH):
            table = arrow[start : start + _BATCH]
            table = table_cast(table, rows.features.arrow_schema)
            if "frames" in table.column_names:
                table = _replace(table, "frames", _relative_folders(table, root))
            if media:
                yield embed_table_storage(table)
            else:
                for name in set(_MEDIA) & set(table.column_names):
                    kind = table.schema.field(name).type
                    table = _replace(table, name, pa.array([_MEDIA[name]] * table.num_rows, type=kind))
                yield table

    return tables


def _replace(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    place = table.column_names.index(name)
    return table.set_column(place, table.schema.field(name), values)


def _relative_folders(table: pa.Table, root: Path | None) -> pa.Array:
    """``frames`` with folders that start from the data's own: nobody else has this machine's paths."""
    column = _struct(table, "frames")
    folders, names, times = column.flatten()
    inner = [None if folder is None else _relative(Path(folder), root) for folder in folders.to_pylist()]
    fields = [column.type.field(number) for number in range(column.type.num_fields)]
    return pa.StructArray.from_arrays(
        [pa.array(inner, type=fields[0].type), names, times], fields=fields, mask=column.is_null()
    )


def _struct(table: pa.Table, name: str) -> pa.StructArray:
    return pa.concat_arrays(table.column(name).chunks)


def _relative(folder: Path, root: Path | None) -> str:
    if root is not None and root in folder.parents:
        return folder.relative_to(root).as_posix()
    return folder.name  # unpacked from an archive into a cache


def _has_folders(rows: Any) -> bool:
    if "kind" not in rows.column_names:
        return False
    tables = rows.select_columns(["frames"]).with_format("arrow").iter(batch_size=1024)
    return any(_struct(table, "frames").flatten()[0].null_count < table.num_rows for table in tables)


def _frame_tables(corpus: str, rows: Any) -> Callable[[int], Iterator[pa.Table]]:
    """One row for each video of a split, with the bytes of its frames."""

    def tables(first: int) -> Iterator[pa.Table]:
        videos: dict[str, dict[str, Any]] = {}
        for row in rows.select_columns(["video_id", "frames"]):
            if row["frames"] is not None and row["frames"]["folder"] is not None:
                videos.setdefault(row["video_id"], row["frames"])
        schema = features("frames").arrow_schema
        for video, frames in list(videos.items())[first:]:
            images = [{"bytes": _bytes(Path(frames["folder"]) / name), "path": name} for name in frames["names"]]
            row = {"corpus": corpus, "video_id": video, "names": frames["names"], "images": images}
            yield pa.Table.from_pylist([row], schema=schema)

    return tables


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MissingDataError(f"the frame cannot be read ({error.strerror})", file=path) from None


# ------------------------------------------------------------------------------------------- script
def main(name: str, card: Path, text: str | None) -> int:
    """The command line of ``dataset_scripts/NAME/publish.py``.

    Args:
        name: The corpus.
        card: The README beside the script.
        text: The script's docstring.

    Returns:
        The exit code: 0, or 2 after an error, which is printed.
    """
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", help="dataset repository, USER/NAME; without it shards are written and not pushed")
    parser.add_argument("--data-dir", help="folder of the published files")
    parser.add_argument("--config", help="config of the corpus, if it has several")
    parser.add_argument("--work", type=Path, help="folder of the shards (default: published/NAME)")
    parser.add_argument("--permission", metavar="WHO ALLOWED WHAT", help="publish what the terms alone do not allow")
    parser.add_argument("--rows-only", action="store_true", help="leave frames, clips and images out in any case")
    parser.add_argument("--accept-problems", action="store_true", help="publish rows that are readable but wrong")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="option of the corpus")
    parser.add_argument("--private", action="store_true", help="make the repository private")
    parser.add_argument("--max-shard-size", default="500MB", help="default: %(default)s")
    arguments = parser.parse_args()
    try:
        publish(
            name, arguments.repo, card=card, work=arguments.work or Path("published") / name, config=arguments.config,
            data_dir=arguments.data_dir, permission=arguments.permission, private=arguments.private,
            max_shard_size=arguments.max_shard_size, accept_problems=arguments.accept_problems,
            rows_only=arguments.rows_only,
            **parse_options(arguments.option),
        )  # fmt: skip
    except EvqaError as error:
        print(f"evqa: {error}", file=sys.stderr)
        return 2
    return 0
