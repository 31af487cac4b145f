"""The submission file: written here, and opened without trusting it.

A zip file with exactly two members, nothing else::

    manifest.json          what was run, on what: see MANIFEST_FIELDS
    predictions.parquet    one row per entry: see schema()

Reading takes nothing on faith: members are read by their exact names and never extracted, bytes are counted as they are
unpacked (what a header says about its size is not believed), and the Parquet file is decoded in a child process with a
limit on memory and time.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from evqa.errors import DataError, PredictionError
from evqa.scoring.inputs import prediction_of
from evqa.types import STATUSES, TASKS, Prediction

__all__ = ["FORMAT", "MANIFEST_FIELDS", "check_manifest", "open_predictions", "pack", "read_manifest", "schema"]

FORMAT = 1
MANIFEST = "manifest.json"
PREDICTIONS = "predictions.parquet"
MOST_MANIFEST_BYTES = 64 * 1024
MOST_PREDICTION_BYTES = 1 << 30
_CHUNK = 1 << 20
_ROW_GROUP = 64  # rows that are decoded together
_CHILD_SECONDS = 900.0

#: Field of the manifest -> what it holds. ``system``, ``task`` and ``benchmark`` are required.
MANIFEST_FIELDS = {
    "format": "the number 1",
    "system": "the name in the table, at most 80 characters",
    "task": "gen or mcq",
    "benchmark": "an object with name, config, split, num_entries and fingerprint, as a run's manifest has it",
    "authors": "who, at most 200 characters",
    "url": "where to read more: an address that starts with https://",
    "description": "what the system is, at most 1000 characters",
    "model": "the model's name and revision, at most 200 characters",
    "evqa": "the version of evqa that wrote the file",
}
_LENGTHS = {"system": 80, "authors": 200, "url": 300, "description": 1000, "model": 200, "evqa": 40}
_BENCHMARK = {"name": str, "config": str, "split": str, "num_entries": int, "fingerprint": str}


def schema() -> Any:
    """The columns of ``predictions.parquet``, a ``pyarrow.Schema``.

    Seconds for segments; masks are COCO RLE with the packed counts as bytes. A failed entry has a row too, with its
    status (:data:`evqa.types.STATUSES`) and no answer.
    """
    import pyarrow as pa

    text, number = pa.string(), pa.int32()
    segment = pa.struct([("start", pa.float64()), ("end", pa.float64())])
    mask = pa.struct([("frame", number), ("height", number), ("width", number), ("counts", pa.binary())])
    return pa.schema(
        [
            ("entry_id", text), ("status", text), ("answer", text), ("segments", pa.list_(segment)),
            ("masks", pa.list_(mask)), ("temporal_choice", text), ("spatial_choice", text),
        ]
    )  # fmt: skip


# ------------------------------------------------------------------------------------------ writing
def pack(
    predictions: Mapping[str, Prediction],
    path: str | os.PathLike,
    *,
    system: str,
    task: str,
    benchmark: Mapping[str, Any],
    **about: str,
) -> Path:
    """Write a submission.

    Args:
        predictions: By entry; they are read one at a time.
        path: The zip file; replaced if it exists, and there as a whole or not at all.
        system: The name in the table.
        task: ``gen`` or ``mcq``.
        benchmark: ``data`` of the run's manifest.
        about: ``authors``, ``url``, ``description``, ``model``.

    Returns:
        ``path``.

    Raises:
        DataError: The manifest breaks a rule of :data:`MANIFEST_FIELDS`.
    """
    import pyarrow.parquet as parquet

    import evqa

    manifest = {
        "format": FORMAT, "system": system, "task": task,
        "benchmark": {key: benchmark[key] for key in _BENCHMARK if benchmark.get(key) is not None},
        **{key: value for key, value in about.items() if value is not None}, "evqa": evqa.__version__,
    }  # fmt: skip
    if problems := check_manifest(manifest):
        raise DataError(f"the manifest of the submission: {'; '.join(problems)}", file=path)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".submission-") as folder:
        rows = Path(folder) / PREDICTIONS
        with parquet.ParquetWriter(rows, schema(), compression="zstd") as writer:
            group: list[dict[str, Any]] = []
            for entry_id in sorted(predictions):
                group.append(_row(prediction_of(predictions, entry_id)))
                if len(group) == _ROW_GROUP:
                    _write(writer, group)
                    group = []
            _write(writer, group)
        archive = Path(folder) / "submission.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as out:  # Parquet is packed already
            out.writestr(_member(MANIFEST), json.dumps(manifest, indent=1, ensure_ascii=False))
            with out.open(_member(PREDICTIONS), "w", force_zip64=True) as target, open(rows, "rb") as source:
                while data := source.read(_CHUNK):
                    target.write(data)
        os.replace(archive, path)
    return path


def _member(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))  # the same predictions give the same bytes


def _write(writer: Any, group: list[dict[str, Any]]) -> None:
    import pyarrow as pa

    if group:
        writer.write_table(pa.Table.from_pylist(group, schema=schema()))


def _row(said: Prediction) -> dict[str, Any]:
    masks = [
        {"frame": m["frame"], "height": m["rle"]["size"][0], "width": m["rle"]["size"][1], "counts": m["rle"]["counts"]}
        for m in said.masks
        if m["rle"] is not None and m["frame"] >= 0
    ]
    return {
        "entry_id": said.entry_id, "status": said.status, "answer": said.answer,
        "segments": [{"start": start, "end": end} for start, end in said.segments], "masks": masks,
        "temporal_choice": said.temporal_choice, "spatial_choice": said.spatial_choice,
    }  # fmt: skip


# ------------------------------------------------------------------------------------------ reading
def _open(path: Path) -> zipfile.ZipFile:
    """The archive, with exactly our two members."""
    try:
        size = path.stat().st_size
        if size > MOST_PREDICTION_BYTES + MOST_MANIFEST_BYTES:
            raise DataError(f"the file has {size:,} bytes; at most {MOST_PREDICTION_BYTES:,} are read", file=path)
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise DataError("there is no such file", file=path) from None
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise DataError(f"this is not a zip file that can be read ({error})", file=path) from None
    names = [info.filename for info in archive.infolist()[:10]]
    if len(archive.infolist()) != 2 or sorted(names) != [MANIFEST, PREDICTIONS]:
        archive.close()
        shown = ", ".join(repr(name[:60]) for name in names[:5]) or "nothing"
        raise DataError(f"the zip file must hold {MANIFEST} and {PREDICTIONS} alone; it holds {shown}", file=path)
    return archive


def _copy(archive: zipfile.ZipFile, name: str, target: IO[bytes], most: int, path: Path) -> None:
    """Unpack a member, counting what really comes out."""
    total = 0
    try:
        with archive.open(name) as source:
            while data := source.read(_CHUNK):
                total += len(data)
                if total > most:
                    raise DataError(f"{name} unpacks to more than {most:,} bytes", file=path)
                target.write(data)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name} cannot be unpacked ({error})", file=path) from None
    except Exception as error:  # zlib.error, lzma.LZMAError and whatever a further method raises
        raise DataError(f"{name} cannot be unpacked ({type(error).__name__}: {error})", file=path) from None


def read_manifest(path: str | os.PathLike) -> dict[str, Any]:
    """The manifest of a submission.

    Raises:
        DataError: The archive or the manifest breaks a rule; every broken rule is named.
    """
    import io

    path = Path(path)
    out = io.BytesIO()
    with _open(path) as archive:
        _copy(archive, MANIFEST, out, MOST_MANIFEST_BYTES, path)
    try:
        manifest = json.loads(out.getvalue().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{MANIFEST} is not JSON ({error})", file=path) from None
    if problems := check_manifest(manifest):
        raise DataError(f"{MANIFEST}: {'; '.join(problems)}", file=path)
    return manifest


def check_manifest(manifest: Any) -> list[str]:
    """What is wrong with a manifest, one sentence each."""
    if not isinstance(manifest, Mapping):
        return [f"it must be an object, this is a {type(manifest).__name__}"]
    problems = [f"unknown field {name[:40]!r}" for name in map(str, manifest) if name not in MANIFEST_FIELDS]
    if manifest.get("format") != FORMAT:
        problems.append(f"format must be {FORMAT}")
    if manifest.get("task") not in TASKS:
        problems.append("task must be gen or mcq")
    for name, most in _LENGTHS.items():
        if name not in manifest:
            continue
        value = manifest[name]
        if not isinstance(value, str) or not value.strip() or len(value) > most:
            problems.append(f"{name} must be a text of 1 to {most} characters")
        elif not value.isprintable():
            problems.append(f"{name} holds characters that cannot be printed")
    if "system" not in manifest:
        problems.append("system is missing: the name in the table")
    url = manifest.get("url")
    if isinstance(url, str) and not re.fullmatch(r"https://[^\s<>\"'`]+", url):
        problems.append("url must start with https:// and hold no spaces or quotes")
    benchmark = manifest.get("benchmark")
    if not isinstance(benchmark, Mapping) or any(type(benchmark.get(k)) is not kind for k, kind in _BENCHMARK.items()):
        problems.append(f"benchmark must be {MANIFEST_FIELDS['benchmark'].removeprefix('an ')}")
    elif not all(
        re.fullmatch(r"[\w./:%\[\]-]{0,100}", benchmark[key]) for key in ("name", "config", "split", "fingerprint")
    ):
        problems.append("benchmark holds something that is no word of at most 100 characters")
    elif unknown := set(benchmark) - set(_BENCHMARK):
        problems.append(f"benchmark has the unknown field {sorted(unknown)[0][:40]!r}")
    return problems


def open_predictions(path: str | os.PathLike, folder: str | os.PathLike) -> tuple[Mapping[str, Prediction], list[str]]:
    """The predictions of a submission.

    Args:
        path: The zip file.
        folder: Gets a private copy; the predictions are read from it, so it must outlive them.

    Returns:
        Predictions by entry, read one at a time, and what is wrong with the file, one sentence each. Where anything is
        wrong the predictions are empty.

    Raises:
        DataError: The archive breaks a rule, or decoding it took more memory or time than any honest file needs.
    """
    from evqa.runlog import read_records

    path, folder = Path(path), Path(folder)
    rows, records = folder / PREDICTIONS, folder / "records.jsonl"
    with _open(path) as archive, open(rows, "wb") as out:
        _copy(archive, PREDICTIONS, out, MOST_PREDICTION_BYTES, path)
    problems = _decode(rows, records, path)
    if problems:
        return {}, problems
    return read_records([records]), []


def _decode(rows: Path, records: Path, path: Path) -> list[str]:
    """Turn Parquet into records, in a child process with limits; returns what is wrong."""
    package = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "evqa.leaderboard.decoding", str(rows), str(records)]
    try:
        done = subprocess.run(
            command, env=environment, cwd=rows.parent, capture_output=True, text=True, timeout=_CHILD_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"{PREDICTIONS} takes more than {_CHILD_SECONDS:.0f} s to decode", file=path) from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:200]
        raise DataError(f"{PREDICTIONS} cannot be decoded within the limits on memory ({last})", file=path)
    answer = json.loads(done.stdout)
    return answer["problems"]


def record(row: Mapping[str, Any]) -> Prediction:
    """A row as a prediction.

    Raises:
        PredictionError: A value that no prediction can have; names the entry.
    """
    entry_id = row["entry_id"]
    if not isinstance(entry_id, str) or not 0 < len(entry_id) <= 500 or not entry_id.isprintable():
        raise PredictionError(f"entry_id must be a printable text of 1 to 500 characters, not {str(entry_id)[:60]!r}")
    if row["status"] not in STATUSES:
        raise PredictionError(f"status is {str(row['status'])[:40]!r}; known: {', '.join(STATUSES)}", entry=entry_id)
    return Prediction(
        entry_id, status=row["status"], answer=row["answer"], temporal_choice=row["temporal_choice"],
        spatial_choice=row["spatial_choice"],
        segments=[[_second(s, entry_id), _second(e, entry_id)] for s, e in _pairs(row["segments"], entry_id)],
        masks=[_mask(mask, entry_id) for mask in row["masks"] or []],
    )  # fmt: skip


def _pairs(segments: Any, entry: str) -> list[tuple[Any, Any]]:
    if any(segment is None for segment in segments or []):
        raise PredictionError("a segment is null", entry=entry)
    return [(segment["start"], segment["end"]) for segment in segments or []]


def _second(value: Any, entry: str) -> float:
    if value is None:
        raise PredictionError("a segment without start or end", entry=entry)
    return float(value)


def _mask(mask: Any, entry: str) -> dict[str, Any]:
    from evqa.errors import MaskError
    from evqa.masks import MAX_PIXELS, counts_to_runs

    if mask is None or any(mask[key] is None for key in ("frame", "height", "width", "counts")):
        raise PredictionError("a mask needs frame, height, width and counts", entry=entry)
    frame, height, width = mask["frame"], mask["height"], mask["width"]
    if frame < 0 or height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise PredictionError(f"impossible mask: frame {frame}, {height} x {width} pixels", entry=entry)
    try:
        counts_to_runs(mask["counts"], height * width)
    except MaskError as error:
        raise PredictionError(f"the mask of frame {frame}: {error.message}", entry=entry) from None
    return {"frame": frame, "time": None, "rle": {"size": [height, width], "counts": mask["counts"]}}
