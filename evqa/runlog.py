"""The append-only record of a run.

What it guarantees: once :meth:`ShardWriter.append` returns, that record survives a kill of the process and, as far as
the file system keeps its promises, a power cut. A run that was killed at any moment can be continued: entries that
were recorded are not run again, and the merged result is the same as that of an undisturbed run.

What it costs: one ``fsync`` per record (a millisecond or a few), which is nothing beside a model's answer.

Layout of a run folder::

    manifest.json                what was run; written first, whole or not at all
    records/rank-00000.jsonl     one line per finished entry, one file per rank

A line is ``{"written": unix time, "rank": int, "prediction": {...}}`` or, once for each start of a writer,
``{"written": ..., "rank": ..., "session": {...}}`` with the environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from evqa._files import fsync_folder, write_atomic, write_json
from evqa.errors import ManifestMismatchError, PredictionError, RunLogError
from evqa.types import Prediction

__all__ = ["RecordFile", "RunLog", "ShardWriter", "read_records"]

FORMAT = 1
_MANIFEST = "manifest.json"


# ----------------------------------------------------------------------------------------- the run
class RunLog:
    """A run folder.

    Attributes:
        folder: The folder.
        manifest: What was run: everything that can change an answer.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]):
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def open(cls, folder: str | os.PathLike) -> RunLog:
        """Open an existing run for reading.

        Raises:
            RunLogError: Not a run folder, or its manifest cannot be read.
        """
        folder = Path(folder)
        path = folder / _MANIFEST
        if not path.is_file():
            raise RunLogError("this is not a run folder: it has no manifest.json", file=folder)
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise RunLogError(f"the manifest cannot be read ({error})", file=path) from None
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise RunLogError(f"the manifest is not of format {FORMAT}", file=path)
        return cls(folder, manifest)

    @classmethod
    def start(cls, folder: str | os.PathLike, manifest: Mapping[str, Any]) -> RunLog:
        """Begin a run, or continue the one that is there. Safe to call from several processes at once.

        Args:
            folder: The run folder; made if need be.
            manifest: JSON-ready settings of the run. What stands under ``"notes"`` is kept for the reader and not
                compared: where the data lay, when it was started.

        Raises:
            ManifestMismatchError: The folder holds a run with other settings; the differing fields are named.
            RunLogError: The folder holds something else, or cannot be written.
        """
        folder = Path(folder)
        wanted = json.loads(json.dumps({"format": FORMAT, **manifest}))
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".manifest.lock"):
                if (folder / _MANIFEST).exists():
                    run = cls.open(folder)
                    differences = _differences({**run.manifest, "notes": None}, {**wanted, "notes": None})
                    if differences:
                        raise ManifestMismatchError(_mismatch_text(differences), differences=differences, file=folder)
                    return run
                strangers = [name for name in os.listdir(folder) if name != ".manifest.lock"]
                if strangers:
                    raise RunLogError(f"the folder is not empty and not a run (it holds {strangers[0]!r})", file=folder)
                write_json(folder / _MANIFEST, wanted)
        return cls(folder, wanted)

    @property
    def shards(self) -> list[Path]:
        """The record files, in order of rank."""
        return sorted((self.folder / "records").glob("rank-*.jsonl"))

    def writer(self, *, rank: int = 0, world_size: int = 1, session: Mapping[str, Any] | None = None) -> ShardWriter:
        """Open this rank's record file for appending; see :class:`ShardWriter`."""
        return ShardWriter(self.folder / "records", rank, world_size, dict(session or {}))

    def predictions(self) -> RecordFile:
        """All records so far, as a mapping from entry id to :class:`Prediction`."""
        return read_records(self.shards)

    def spent(self) -> float:
        """What all records have cost, those that a later one replaced included: the money is gone."""
        records = (line["prediction"] for path in self.shards for line in _lines(path) if "prediction" in line)
        return sum((record.get("usage") or {}).get("cost") or 0.0 for record in records)

    def merge(self, path: str | os.PathLike | None = None) -> Path:
        """Write the merged records to one file (default: ``predictions.jsonl`` in the run folder), sorted by entry.

        Doing it again, or with the shards in another order, gives the same bytes.
        """
        path = Path(path) if path is not None else self.folder / "predictions.jsonl"
        records = self.predictions()
        lines = [json.dumps(records[entry].to_json(), ensure_ascii=False) + "\n" for entry in sorted(records)]
        write_atomic(path, "".join(lines))
        return path


def _differences(there: Any, wanted: Any, at: str = "") -> dict[str, tuple[Any, Any]]:
    if isinstance(there, dict) and isinstance(wanted, dict):
        out: dict[str, tuple[Any, Any]] = {}
        for key in sorted(set(there) | set(wanted)):
            out |= _differences(there.get(key), wanted.get(key), f"{at}.{key}" if at else key)
        return out
    return {} if there == wanted else {at: (there, wanted)}


def _mismatch_text(differences: Mapping[str, tuple[Any, Any]]) -> str:
    fields = "; ".join(
        f"{name}: {_short(old)} in the run, {_short(new)} now" for name, (old, new) in differences.items()
    )
    return f"the folder holds a run with other settings ({fields}); use another folder or the same settings"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunLogError(f"cannot write the run ({error.strerror or error})", file=path) from error


# -------------------------------------------------------------------------------------- one writer
class ShardWriter:
    """Appends one rank's records. One process at a time may hold a rank; a second one is refused.

    Use as a context manager. A half-written last line, left by a kill, is cut off on opening: its entry is not in
    the log and will be run again.

    Args:
        folder: The run's ``records`` folder.
        rank, world_size: Which of how many writers this is.
        session: Written as the first line of this session: environment, versions.

    Raises:
        RunLogError: Another process writes this rank, or writes the run with another number of ranks; or the file
            cannot be written.
    """

    def __init__(self, folder: Path, rank: int, world_size: int, session: dict[str, Any]):
        if not 0 <= rank < world_size:
            raise RunLogError(f"rank {rank} is not one of {world_size}", file=folder)
        self.path = folder / f"rank-{rank:05d}.jsonl"
        self._rank = rank
        with _writing(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(_lock_path(self.path))
            try:
                self._lock.acquire(blocking=False)
            except Timeout:
                raise RunLogError("another process is writing this run", file=self.path) from None
            try:
                self._refuse_other_worlds(folder, world_size)
                self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
                self._repair()
            except BaseException:
                self._lock.release()
                raise
        fsync_folder(folder)
        self._write({"session": {"world_size": world_size, **session}})

    def _refuse_other_worlds(self, folder: Path, world_size: int) -> None:
        for path in folder.glob("rank-*.jsonl"):
            if path == self.path:
                continue
            lock = FileLock(_lock_path(path))
            try:
                lock.acquire(blocking=False)
            except Timeout:
                sessions = [line["session"] for line in _lines(path) if "session" in line]
                if sessions and sessions[-1].get("world_size") != world_size:
                    raise RunLogError(
                        f"the run is being written by {sessions[-1].get('world_size')} ranks, this is one of "
                        f"{world_size}: entries would be run twice",
                        file=path,
                    ) from None
            else:
                lock.release()

    def _repair(self) -> None:
        end = _sound_length(self.path)
        if end < os.fstat(self._descriptor).st_size:
            os.ftruncate(self._descriptor, end)
            os.fsync(self._descriptor)

    def append(self, prediction: Prediction) -> None:
        """Record a finished entry; when this returns, the record is on disk.

        Raises:
            RunLogError: The disk is full or the file cannot be written. What was written of the record is taken back,
                so the file stays sound and the run can be continued later.
        """
        self._write({"prediction": prediction.to_json()})

    def _write(self, record: dict[str, Any]) -> None:
        line = json.dumps({"written": time.time(), "rank": self._rank, **record}, ensure_ascii=False) + "\n"
        data = line.encode("utf-8")
        before = os.fstat(self._descriptor).st_size
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
            os.fsync(self._descriptor)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, before)
            raise RunLogError(f"cannot record the entry ({error.strerror or error})", file=self.path) from error

    def close(self) -> None:
        """Close the file and let go of the rank; closing twice does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._lock.release()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _lock_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


# ----------------------------------------------------------------------------------------- reading
def _sound_length(path: Path) -> int:
    """Length of the file up to the end of its last sound line."""
    end = 0
    for _, offset, length in _lines_with_place(path):
        end = offset + length
    return end


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for line, _, _ in _lines_with_place(path):
        yield line


def _lines_with_place(path: Path) -> Iterator[tuple[dict[str, Any], int, int]]:
    """Lines as objects with their offset and length.

    A last line that is damaged is left out: a kill can tear it, and a power cut can leave zeros in its place. Damage
    before it has another cause and is an error.
    """
    offset = 0
    damaged: tuple[int, str] | None = None
    with open(path, "rb") as handle:
        for number, line in enumerate(handle, start=1):
            if damaged is not None:
                raise RunLogError(f"line {damaged[0]} is damaged ({damaged[1]}) and more lines follow", file=path)
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("no line end")
                value = json.loads(line)
                if not isinstance(value, dict):
                    raise ValueError("not an object")
            except ValueError as error:
                damaged = (number, str(error))
            else:
                yield value, offset, len(line)
            offset += len(line)


class RecordFile(Mapping[str, Prediction]):
    """Records of one or more ``.jsonl`` files as a mapping; only their places are held in memory.

    When an entry is recorded more than once, a success wins over a failure, and then the later record wins.
    """

    def __init__(self, places: dict[str, tuple[Path, int, int]]):
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __contains__(self, entry_id: object) -> bool:
        return entry_id in self._places

    def __getitem__(self, entry_id: str) -> Prediction:
        path, offset, length = self._places[entry_id]
        with open(path, "rb") as handle:
            handle.seek(offset)
            record = json.loads(handle.read(length))
        return Prediction.from_json(record.get("prediction", record), file=path)


def read_records(paths: Iterable[str | os.PathLike]) -> RecordFile:
    """Index record files: a run's shards, or plain ``.jsonl`` with one prediction a line.

    Raises:
        RunLogError: A damaged line that is not the last one of its file.
        PredictionError: A line that holds no prediction.
    """
    best: dict[str, tuple[tuple[bool, float], tuple[Path, int, int]]] = {}
    for path in map(Path, paths):
        for line, offset, length in _lines_with_place(path):
            if "session" in line:
                continue
            prediction = line.get("prediction", line)
            entry = prediction.get("entry_id") if isinstance(prediction, dict) else None
            if not isinstance(entry, str):
                raise PredictionError("a record without an entry_id", file=path)
            rank = (prediction.get("status", "ok") == "ok", float(line.get("written", 0.0)))
            if entry not in best or rank >= best[entry][0]:
                best[entry] = (rank, (path, offset, length))
    return RecordFile({entry: place for entry, (_, place) in best.items()})


def finished(log: RunLog, *, retry_failed: bool = False) -> set[str]:
    """Ids that need not be run (again)."""
    records = log.predictions()
    if not retry_failed:
        return set(records)
    return {entry for entry in records if not records[entry].failed}


def shard(entries: Sequence[Any], rank: int, world_size: int) -> list[Any]:
    """The entries of one rank: every ``world_size``-th, so that ranks differ by at most one."""
    return list(entries[rank::world_size])
