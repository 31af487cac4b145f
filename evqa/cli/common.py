"""What the commands share: exit codes, groups of arguments, references, what came of a run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import evqa
from evqa.errors import DataError

__all__ = [
    "EXIT_ERROR", "EXIT_INCOMPLETE", "EXIT_INTERRUPTED", "REFERENCES", "distinct_names", "execution_arguments",
    "execution_options", "finish", "folder_of", "load", "load_references", "positive", "reference_arguments",
]  # fmt: skip

EXIT_INCOMPLETE = 1  # it ran, but not every entry was answered and scored
EXIT_ERROR = 2
EXIT_INTERRUPTED = 130

REFERENCES = """NAME or FOLDER, optionally with ":CONFIG". A name such as evqa/st_evidence loads that corpus; a folder
is read in the layout of the ST-Evidence release. Without a config: gen or mcq, as the task wants."""


# --------------------------------------------------------------------------------------- arguments
def execution_arguments(parser: argparse.ArgumentParser) -> None:
    """How to run: for :func:`execution_options`."""
    parser.add_argument("--batch-size", type=positive, help="entries at a time (default: what the model wants)")
    parser.add_argument("--retry-failed", action="store_true", help="run entries again whose record is a failure")
    parser.add_argument("--retries", type=int, default=3, help="tries after a passing failure (default: %(default)s)")
    parser.add_argument(
        "--shard", type=_shard, metavar="I/N", help="only the I-th of N shares, for N machines and one folder"
    )


def reference_arguments(parser: argparse.ArgumentParser, *, intervals: bool = True) -> None:
    """What is right: for :func:`load_references`; ``intervals``: and how many resamplings."""
    parser.add_argument("--references", metavar="DATA", help=REFERENCES + " Default: what the run was made on.")
    parser.add_argument("--data-dir", type=Path, help="folder of the published files, for a corpus by name")
    parser.add_argument("--split", help="split or slice of the references")
    parser.add_argument("--task", choices=("gen", "mcq"), help="default: the run's, or what the file holds")
    if intervals:
        parser.add_argument("--bootstrap", type=int, default=1000, help="resamplings (default: %(default)s)")


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {value}")
    return value


def _shard(text: str) -> tuple[int, int]:
    """``3/8``, the third of eight, as rank and number of ranks."""
    part, slash, parts = text.partition("/")
    if not slash or not part.isdigit() or not parts.isdigit() or not 1 <= int(part) <= int(parts):
        raise argparse.ArgumentTypeError(f"must be I/N with 1 <= I <= N, not {text!r}")
    return int(part) - 1, int(parts)


# ----------------------------------------------------------------------------------------- running
def execution_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """How to run, as :func:`evqa.engine.run` takes it."""
    rank, world_size = arguments.shard or (None, None)
    return {
        "batch_size": arguments.batch_size, "retries": arguments.retries, "retry_failed": arguments.retry_failed,
        "rank": rank, "world_size": world_size,
    }  # fmt: skip


def finish(result: Any, out: Path) -> int:
    """Say what came of a run, and its exit code."""
    print(f"{result.done} entries run, {result.skipped} were recorded before, {result.failed} failed: {out}")
    if result.interrupted:
        print("evqa: interrupted; the same command continues the run", file=sys.stderr)
        return EXIT_INTERRUPTED
    if result.out_of_money:
        print(f"evqa: stopped, the run has cost {result.cost:.2f}; a larger --max-cost continues it", file=sys.stderr)
    return EXIT_INCOMPLETE if result.failed or result.out_of_money else 0


# -------------------------------------------------------------------------------------- references
def folder_of(data: str | None, data_dir: Path | None) -> str | None:
    """Where the data lie, so that scoring can find them again from any folder."""
    folder = Path(data) if data is not None and Path(data).is_dir() else data_dir
    return None if folder is None else str(folder.resolve())


def load(data: str, data_dir: Path | None, split: str | None, task: str, **options: Any) -> tuple[dict[str, Any], Any]:
    """Rows, and what to call them in a manifest."""
    from datasets import Dataset, DatasetDict

    name, config = data, None
    if not Path(data).is_dir():
        name, _, config = data.partition(":")
    if Path(name).is_dir():
        name, data_dir = "evqa/st_evidence", Path(name)
    config = config or task
    rows = evqa.load_dataset(name, config, data_dir=data_dir and str(data_dir), split=split, **options)
    if isinstance(rows, DatasetDict):
        if len(rows) != 1:
            raise DataError(f"{name}:{config} has the splits {', '.join(rows)}; say which with --split")
        split, rows = next(iter(rows.items()))
    assert isinstance(rows, Dataset)
    return {"name": name, "config": config, "split": split}, rows


def load_references(
    arguments: argparse.Namespace, paths: Sequence[Path], *, limited: bool = True
) -> tuple[Any, str | None, dict[str, Any]]:
    """The references to score against, the task, and what the references are called; as asked, or as the run says.

    The last has ``name``, ``config``, ``split``, ``data_dir``, and ``limit`` if the runs were limited to the first so
    many. ``limited``: leave out what is beyond that.
    """
    from evqa.engine import describe_data
    from evqa.errors import PredictionError
    from evqa.runlog import RunLog

    for path in paths:
        if not path.exists():
            raise PredictionError("there is no such prediction file or run folder", file=path)
    manifests = {path: RunLog.open(path).manifest for path in paths if path.is_dir()}
    manifest = next(iter(manifests.values()), None)
    task = arguments.task or (manifest["task"] if manifest else None)
    if arguments.references is not None:
        data, folder, split = arguments.references, arguments.data_dir, arguments.split
    elif manifest is not None:
        made_on = manifest["data"]
        data = f"{made_on.get('name')}:{made_on.get('config')}"
        folder = arguments.data_dir or manifest.get("notes", {}).get("data_dir")
        split = arguments.split or made_on.get("split")
    else:
        raise DataError("a prediction file does not say what it was made on: pass --references")
    called, rows = load(data, folder and Path(folder), split, task or "gen")
    asked = describe_data(rows)["fingerprint"]
    for path, one in manifests.items():
        if arguments.split is None and one["data"]["fingerprint"] != asked:
            raise DataError("the run was made on other data than these references", file=path)
    limits = {one["data"].get("limit") for one in manifests.values()}
    limit = limits.pop() if len(limits) == 1 else None
    if limited and limit:
        rows = rows.select(range(min(limit, len(rows))))
    return rows, task, {**called, "data_dir": folder_of(data, folder and Path(folder)), "limit": limit}


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Short names of runs; longer where the last part alone does not tell them apart."""
    names = [path.resolve().name if path.is_dir() else path.stem for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    if len(set(names)) < len(names):
        raise DataError("the same run is given twice")
    return names
