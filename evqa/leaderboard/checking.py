"""Check a submission: read it, score it again from the references, and say exactly what is wrong."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from evqa._files import write_json
from evqa.errors import DataError, EvqaError
from evqa.scoring.aggregate import metric_names, score
from evqa.scoring.inputs import iter_references, prediction_of
from evqa.scoring.protocols import PROTOCOLS, STRICT
from evqa.types import TASKS, Prediction

__all__ = ["RESULT_FORMAT", "Verdict", "check", "read_result", "result_of", "write_result"]

RESULT_FORMAT = 1
_MOST_RESULT_BYTES = 4 << 20
_MOST_NAMED = 5  # entries that a sentence names


@dataclasses.dataclass
class Verdict:
    """What came of a submission.

    Attributes:
        errors: Why it is refused, one sentence each; empty if it is accepted.
        notes: What is odd and was scored as it stands: problems of single predictions, failed entries.
        result: The scores with the hashes of what was scored (:func:`result_of`); ``None`` if it is refused.
    """

    errors: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    result: dict[str, Any] | None = None

    @property
    def accepted(self) -> bool:
        """Whether the submission may stand in a table."""
        return not self.errors


def check(path: str | os.PathLike, references: Any, *, bootstrap: int = 1000) -> Verdict:
    """Check a submission and score it.

    Nothing that the submission says about its own quality is read. Every entry of the references must have a row,
    failed ones too, and there must be no others.

    Args:
        path: The zip file.
        references: Rows of the benchmark that it was made on.
        bootstrap: Resamplings for the intervals.
    """
    from evqa.engine import describe_data
    from evqa.leaderboard.submission import open_predictions, read_manifest

    try:
        manifest = read_manifest(path)
    except DataError as error:
        return Verdict([error.message])
    ids = list(_column(references, "entry_id"))
    there, named = describe_data(references), manifest["benchmark"]
    if there["fingerprint"] != named["fingerprint"]:
        return Verdict(
            [
                f"it was made on other data: the manifest names {named['num_entries']} entries with the fingerprint "
                f"{named['fingerprint'][:40]}, the references are {there['num_entries']} entries with "
                f"{there['fingerprint']}"
            ]
        )
    with tempfile.TemporaryDirectory(prefix="evqa-submission-") as folder:
        try:
            predictions, problems = open_predictions(path, folder)
        except DataError as error:
            return Verdict([error.message])
        if problems:
            return Verdict(problems)
        errors = _coverage(set(predictions), set(ids))
        if errors:
            return Verdict(errors)
        result, notes = result_of(manifest, predictions, references, bootstrap=bootstrap)
    return Verdict([], notes, result)


def _column(rows: Any, name: str) -> Iterable[Any]:
    if isinstance(getattr(rows, "column_names", None), list):
        return rows[name]
    return (row[name] for row in rows)


def _coverage(given: set[str], known: set[str]) -> list[str]:
    errors = []
    if missing := sorted(known - given):
        count = f"{len(missing)} of {len(known)}"
        errors.append(f"{count} entries have no row, which failed ones need too: {_named(missing)}")
    if extra := sorted(given - known):
        errors.append(f"{len(extra)} rows are for no entry of the benchmark: {_named(extra)}")
    return errors


def _named(ids: list[str]) -> str:
    more = f" and {len(ids) - _MOST_NAMED} more" if len(ids) > _MOST_NAMED else ""
    return ", ".join(name[:80] for name in ids[:_MOST_NAMED]) + more


def result_of(
    manifest: Mapping[str, Any], predictions: Mapping[str, Prediction], references: Any, *, bootstrap: int = 1000
) -> tuple[dict[str, Any], list[str]]:
    """Score predictions under both protocols.

    Returns:
        The result, and notes. The result holds the manifest, the scores with intervals, and three SHA-256 sums:
        ``predictions_sha256`` and ``references_sha256`` over what was scored, however it was stored, and ``sha256``
        over the rest of the result. They say what was scored, and a number that was changed afterwards no longer fits;
        they prove no authorship. Who doubts a result scores the submission again.
    """
    import evqa

    task = manifest["task"]
    scores: dict[str, Any] = {}
    notes: list[str] = []
    for protocol, version in PROTOCOLS.items():
        try:
            done = score(predictions, references, protocol, task=task, bootstrap=bootstrap)
        except EvqaError as error:
            if protocol == STRICT:
                raise
            notes.append(f"no {protocol} scores: {error}")
            continue
        if protocol == STRICT:
            odd = [entry for entry in done.entries if entry.problems or entry.status != "ok"]
            notes += [f"{entry.entry_id}: {'; '.join([entry.status, *entry.problems])}" for entry in odd]
            counts = {key: value for key, value in done.items() if key.startswith("num_")}
        scores[protocol] = {
            "version": version,
            "numbers": {name: done[name] for name in metric_names(task, protocol) if name in done},
            "intervals": {name: list(bounds) for name, bounds in done.intervals.items()},
        }
    result = {
        "format": RESULT_FORMAT,
        "manifest": dict(manifest),
        "scores": scores,
        "counts": counts,
        "predictions_sha256": _predictions_hash(predictions),
        "references_sha256": _references_hash(references),
        "evqa": evqa.__version__,
    }
    return {**result, "sha256": _result_hash(result)}, notes


# -------------------------------------------------------------------------------------------- hashes
def _predictions_hash(predictions: Mapping[str, Prediction]) -> str:
    digest = hashlib.sha256()
    for entry_id in sorted(predictions):
        said = prediction_of(predictions, entry_id)
        scored = [said.entry_id, said.status, said.answer, said.segments, said.temporal_choice, said.spatial_choice]
        digest.update(_canonical([*scored, _mask_list(said.masks)]))
    return digest.hexdigest()


def _references_hash(references: Any) -> str:
    lines = []
    for right in iter_references(references):
        scored = [right.entry_id, right.cluster, right.answer, [str(one) for one in right.candidates], right.segments]
        choices = [right.temporal_answer, right.spatial_answer]
        lines.append((right.entry_id, _canonical([*scored, *choices, _mask_list(right.masks or [])])))
    digest = hashlib.sha256()
    for _, line in sorted(lines):
        digest.update(line)
    return digest.hexdigest()


def _mask_list(masks: Iterable[Mapping[str, Any]]) -> list[Any]:
    ours = [m for m in masks if m["rle"] is not None and m["frame"] >= 0]
    return sorted([m["frame"], *m["rle"]["size"], bytes(m["rle"]["counts"]).decode("latin-1")] for m in ours)


def _canonical(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), sort_keys=True).encode("ascii") + b"\n"


def _result_hash(result: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical({key: value for key, value in result.items() if key != "sha256"})).hexdigest()


# ------------------------------------------------------------------------------------------- results
def write_result(result: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Write a result as JSON."""
    write_json(path, dict(result))


def read_result(path: str | os.PathLike) -> dict[str, Any]:
    """Read a result and check that it is whole.

    Raises:
        DataError: Not a result, or its numbers do not fit its hash.
    """
    from evqa.leaderboard.submission import check_manifest

    path = Path(path)
    try:
        if path.stat().st_size > _MOST_RESULT_BYTES:
            raise DataError(f"a result has at most {_MOST_RESULT_BYTES:,} bytes", file=path)
        result = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"this is no result ({error})", file=path) from None
    ours = isinstance(result, dict) and result.get("format") == RESULT_FORMAT
    if not ours or not isinstance(result.get("scores"), dict):
        raise DataError(f"this is no result of format {RESULT_FORMAT}", file=path)
    if result.get("sha256") != _result_hash(result):
        raise DataError("the result was changed: its content does not fit its hash", file=path)
    if problems := check_manifest(result.get("manifest")):
        raise DataError(f"the result's manifest: {'; '.join(problems)}", file=path)
    if STRICT not in result["scores"] or result["manifest"]["task"] not in TASKS:
        raise DataError("the result has no strict scores", file=path)
    return result
