"""Runs an adapter over a benchmark: whose entries are whose, progress, limits; each finished entry is logged."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any

from evqa.adapters.base import REFERENCE_COLUMNS, Adapter
from evqa.answering import answer
from evqa.errors import AdapterError, DataError
from evqa.runlog import RunLog, finished, shard
from evqa.types import TASKS

__all__ = ["RunResult", "View", "describe_data", "run"]

# Part of the identity of the data: what was asked, and what counts as right.
_IDENTITY = (
    "entry_id", "video_id", "question", "candidates", "answer", "segments",
    "temporal_options", "temporal_answer", "spatial_answer",
)  # fmt: skip
_PACKAGES = ("evqa", "datasets", "numpy", "torch", "transformers", "vllm", "openai", "google-genai", "decord2", "av")


@dataclasses.dataclass
class RunResult:
    """What came of a call of :func:`run`.

    Attributes:
        log: The run.
        done: Entries run by this call.
        skipped: Entries of this rank that the log already held.
        failed: Of ``done``, how many are failure records.
        interrupted: Whether it was stopped by Ctrl-C; the log is sound and the run can be continued.
        cost: What the run has cost so far, earlier sessions included, in the currency of the adapter's price table.
        out_of_money: Whether it was stopped because ``cost`` reached ``max_cost``.
    """

    log: RunLog
    done: int = 0
    skipped: int = 0
    failed: int = 0
    interrupted: bool = False
    cost: float = 0.0
    out_of_money: bool = False


def run(
    adapter: Adapter,
    data: Any,
    folder: str | os.PathLike,
    *,
    task: str = "gen",
    data_name: Mapping[str, Any] | None = None,
    notes: Mapping[str, Any] | None = None,
    batch_size: int | None = None,
    limit: int | None = None,
    retries: int = 3,
    retry_failed: bool = False,
    max_cost: float | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    progress: bool = True,
    sleep: Callable[[float], None] = time.sleep,
) -> RunResult:
    """Run an adapter over a benchmark, or continue such a run.

    Args:
        adapter: The model.
        data: Benchmark rows: a ``datasets.Dataset`` or a sequence of dictionaries with unique ``entry_id``.
        folder: The run folder. If it holds a run, its settings must be the same; recorded entries are not run again.
        task: ``gen`` or ``mcq``.
        data_name: Name, config and split of the data, for the manifest.
        notes: Kept in the manifest for the reader; may differ when the run is continued.
        batch_size: Entries per call of the adapter; default: what the adapter wants.
        limit: Only the first so many entries.
        retries: How often a transient failure is retried, with exponential backoff.
        retry_failed: Run entries again whose record is a failure.
        max_cost: Stop when the recorded cost of the whole run reaches this. Entries that are being answered then are
            still recorded, so the cost can end up higher by at most the adapter's ``concurrency`` entries. Ranks do not
            hear of one another's costs while they run: give each its share of the money.
        rank, world_size: Which share of the entries is this process's; default: ``RANK`` and ``WORLD_SIZE`` as
            ``torchrun`` and ``accelerate launch`` set them, else the only one.
        progress: Show a progress bar on rank 0.
        sleep: How to wait between retries; a test can pass its own.

    Raises:
        RunLogError: The log cannot be written, or the folder holds another run.
        DataError: Rows without ids or with an id twice.
        AdapterError: The adapter cannot do this task.
        SetupError: The adapter can answer nothing: a wrong key, a model that is not there.
    """
    if task not in TASKS or task not in adapter.tasks:
        raise AdapterError(f"adapter {adapter.name!r} does the tasks {', '.join(adapter.tasks)}, not {task!r}")
    rank = int(os.environ.get("RANK", 0)) if rank is None else rank
    world_size = int(os.environ.get("WORLD_SIZE", 1)) if world_size is None else world_size
    ids = _entry_ids(data)
    if limit is not None:
        ids = ids[:limit]
    manifest = {
        "task": task,
        "adapter": {"name": adapter.name, **adapter.settings()},
        "data": {**(data_name or {}), **describe_data(data), "limit": limit},
        "notes": dict(notes or {}),
    }
    log = RunLog.start(folder, manifest)
    result = RunResult(log)
    with log.writer(rank=rank, world_size=world_size, session=_environment()) as writer:
        done = finished(log, retry_failed=retry_failed)
        mine = shard(range(len(ids)), rank, world_size)
        todo = [(ids[index], index) for index in mine if ids[index] not in done]
        result.skipped = len(mine) - len(todo)
        result.cost = log.spent() if max_cost is not None else 0.0
        bar = _Bar(len(mine), result.skipped, show=progress and rank == 0, name=f"{adapter.name}/{task}")
        stop = _Stop()
        answers = answer(
            adapter, View(adapter, data), todo, task,
            batch_size=batch_size or adapter.batch_size, retries=retries, sleep=sleep,
            stopping=lambda: stop.asked or result.out_of_money,
        )  # fmt: skip
        try:
            with stop:
                for prediction in answers:
                    writer.append(prediction)
                    result.done += 1
                    result.failed += prediction.failed
                    result.cost += prediction.usage.get("cost") or 0.0
                    result.out_of_money = max_cost is not None and result.cost >= max_cost
                    bar.step(failed=result.failed)
            result.interrupted = stop.asked
        except KeyboardInterrupt:
            result.interrupted = True
        finally:
            answers.close()
            bar.close()
    return result


def describe_data(data: Any) -> dict[str, Any]:
    """How many entries, and a hash of what they ask and hold right; the same on every machine and for every cache."""
    digest = hashlib.sha256()
    count = 0
    for row in _columns(data, _IDENTITY):
        row = {key: row[key] for key in _IDENTITY if row.get(key) is not None}
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode("utf-8"))
        count += 1
    return {"num_entries": count, "fingerprint": digest.hexdigest()[:16]}


def _columns(data: Any, names: Sequence[str]) -> Any:
    """Only some columns, without decoding the others where the data can do that."""
    have = getattr(data, "column_names", None)
    if isinstance(have, list) and hasattr(data, "select_columns"):
        return data.select_columns([name for name in have if name in names])
    return data


def _entry_ids(data: Any) -> list[str]:
    ids = [row.get("entry_id") for row in _columns(data, ("entry_id",))]
    seen: set[str] = set()
    for entry in ids:
        if not isinstance(entry, str) or not entry:
            raise DataError(f"a row of the data has no entry_id (it has {entry!r})")
        if entry in seen:
            raise DataError("the data holds this entry twice", entry=entry)
        seen.add(entry)
    return ids


class View:
    """The data as an adapter may see it: without what is right, unless the adapter is an oracle."""

    def __init__(self, adapter: Adapter, data: Any):
        hidden = set() if adapter.sees_reference else set(REFERENCE_COLUMNS)
        hidden |= set() if adapter.needs_images else {"spatial_options"}
        have = getattr(data, "column_names", None)
        if isinstance(have, list) and hasattr(data, "remove_columns"):
            data = data.remove_columns([name for name in have if name in hidden])
            hidden = set()
        self._data = data
        self._hidden = hidden

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {key: value for key, value in self._data[index].items() if key not in self._hidden}


# ---------------------------------------------------------------------------------------- reports
def _environment() -> dict[str, Any]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {"python": platform.python_version(), "platform": platform.platform(), "packages": versions}


class _Stop:
    """Ctrl-C: the first lets the entries in work be finished and recorded, the second stops at once."""

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> _Stop:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _handle(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("\nfinishing the entries in work; Ctrl-C again stops at once", file=sys.stderr)


class _Bar:
    """A progress bar with rate and remaining time; silent where nobody wants it."""

    def __init__(self, total: int, initial: int, *, show: bool, name: str):
        self._bar = None
        if show:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=total, initial=initial, desc=name, unit="entry", dynamic_ncols=True)

    def step(self, *, failed: int) -> None:
        if self._bar is not None:
            if failed:
                self._bar.set_postfix(failed=failed, refresh=False)
            self._bar.update()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
