"""The evidence page: one folder with an HTML page that opens from disk and shows what a system saw.

Layout::

    index.html                    the page
    assets/                       its style and scripts
    data/index.js                 scores, and what the list needs of each entry
    data/entries/00000.js         one entry's masks, segments and text; read when it scrolls into view
    clips/  options/              video and images

Data are scripts, not JSON files, because a page opened from disk may run scripts but not fetch files.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evqa._files import write_atomic
from evqa.errors import DataError, EvqaError
from evqa.report.clips import ClipStore
from evqa.report.table import _finite
from evqa.scoring.aggregate import Scores, metric_groups, score
from evqa.scoring.answers import LETTERS, match_candidate, match_letter
from evqa.scoring.inputs import prediction_of
from evqa.scoring.protocols import EVQA_V1, STRICT
from evqa.types import NUM_OPTIONS, Prediction

__all__ = ["write_report"]

_ABOUT = {
    STRICT: "every annotated frame, merged segments, letters read as a person would",
    EVQA_V1: "the original release's evaluator, for comparison with its paper",
}
_ASSETS = Path(__file__).parent / "assets"


def write_report(
    runs: Mapping[str, Mapping[str, Prediction]],
    references: Any,
    folder: str | os.PathLike,
    *,
    task: str,
    title: str = "Evidence",
    bootstrap: int = 1000,
) -> Path:
    """Write the page.

    Args:
        runs: Name of a system -> its predictions by entry.
        references: Rows of the benchmark; each is read once.
        folder: Gets the page. A page that is there is replaced; a folder with anything else in it is refused.
        task: ``gen`` or ``mcq``.
        title: Heading.
        bootstrap: Resamplings for the intervals.

    Returns:
        The path of ``index.html``.

    Raises:
        DataError: No runs, or ``folder`` holds something else.
    """
    if not runs:
        raise DataError("there is no run to report on")
    folder = _fresh(Path(folder))
    scored = {name: _scores(predictions, references, task, bootstrap) for name, predictions in runs.items()}
    clips = ClipStore(folder)
    entries = []
    for number, row in enumerate(references):
        file = f"data/entries/{number:05d}.js"
        light, full = _entry(row, runs, scored, clips)
        if task == "mcq":
            full |= _mcq_options(row, folder, f"options/{number:05d}")
        _script(folder / file, f"evqaPage.entry({json.dumps(row['entry_id'])}, ", full)
        entries.append({**light, "file": file})
    first = next(iter(scored.values()))[STRICT]
    problems = f" {len(clips.problems)} clips could not be shown: {clips.problems[0]}." if clips.problems else ""
    index = {
        "title": title,
        "subtitle": f"{len(entries)} questions about {len({e['video_id'] for e in entries})} clips, "
        f"task {task}. Numbers in brackets are 95 % bootstrap intervals over clips.",
        "footer": f"Made by evqa.{problems}",
        "protocols": [
            {
                "name": name,
                "about": about,
                "groups": [
                    {"title": title, "metrics": [metric for metric in metrics if metric in first]}
                    for title, metrics in metric_groups(task, name).items()
                ],
            }
            for name, about in _ABOUT.items()
        ],
        "runs": [{"name": name, "scores": {p: _numbers(s) for p, s in scored[name].items()}} for name in runs],
        "entries": entries,
    }
    _script(folder / "data" / "index.js", "evqaPage.index(", index)
    shutil.copytree(_ASSETS, folder / "assets", ignore=shutil.ignore_patterns("index.html"))
    # Last: a folder with an index.html is a whole page.
    write_atomic(folder / "index.html", (_ASSETS / "index.html").read_bytes())
    return folder / "index.html"


_OURS = {"index.html", "assets", "data", "clips", "options"}


def _fresh(folder: Path) -> Path:
    """The folder, empty. Only what we wrote ourselves is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    names = set(os.listdir(folder))
    if strangers := names - _OURS:
        raise DataError(f"the folder holds something that is not ours ({sorted(strangers)[0]!r})", file=folder)
    for name in sorted(names, key=lambda name: name != "index.html"):  # first: without it, it is no page
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder


def _script(path: Path, call: str, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(call + json.dumps(_finite(value), separators=(",", ":"), ensure_ascii=True) + ");\n", "ascii")


# ------------------------------------------------------------------------------------------ scores
def _scores(predictions: Mapping[str, Prediction], references: Any, task: str, bootstrap: int) -> dict[str, Any]:
    out: dict[str, Any] = {STRICT: score(predictions, references, STRICT, task=task, bootstrap=bootstrap)}
    try:
        out[EVQA_V1] = score(predictions, references, EVQA_V1, task=task, bootstrap=bootstrap)
    except EvqaError as error:  # the original evaluator stops at some inputs; the page says where
        out[EVQA_V1] = str(error)
    return out


def _numbers(scores: Scores | str) -> dict[str, Any]:
    if isinstance(scores, str):
        return {"error": scores}
    return {"numbers": dict(scores), "intervals": {name: list(b) for name, b in scores.intervals.items()}}


# ----------------------------------------------------------------------------------------- entries
def _entry(
    row: Mapping[str, Any],
    runs: Mapping[str, Mapping[str, Prediction]],
    scored: Mapping[str, Mapping[str, Any]],
    clips: ClipStore,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the list needs of an entry, and the rest."""
    entry_id = row["entry_id"]
    metadata = json.loads(row.get("metadata") or "{}")
    masks = _masks(row.get("masks") or [])
    light = {
        "id": entry_id,
        "video_id": row["video_id"],
        "clip": clips.add(row.get("video"), row["video_id"]),
        "fps": row.get("fps"),
        "duration": row.get("duration"),
        "size": [row["height"], row["width"]] if row.get("height") else None,
        "question": row["question"],
        "candidates": row["candidates"],
        "answer_index": row.get("answer_index"),
        "tags": [str(metadata[key]) for key in ("question_type", "source") if metadata.get(key)],
        "runs": [],
    }
    full: dict[str, Any] = {
        "truth": {"segments": row["segments"] or [], "masks": masks},
        "size": masks[0]["s"] if masks else None,
        "runs": [],
    }
    for name, predictions in runs.items():
        said = prediction_of(predictions, entry_id) or Prediction.failure(entry_id, "missing", "no prediction")
        scores = scored[name][STRICT].entry(entry_id)
        light["runs"].append(
            {
                "status": said.status,
                "answer": said.answer,
                "answer_index": None if said.answer is None else match_candidate(said.answer, row["candidates"]),
                "temporal_index": match_letter(said.temporal_choice, NUM_OPTIONS),
                "spatial_index": match_letter(said.spatial_choice, NUM_OPTIONS),
                "chips": _chips(scores.values),
            }
        )
        full["runs"].append(
            {
                "segments": said.segments,
                "masks": _masks(said.masks),
                "expressions": said.referring_expressions,
                "raw_text": said.raw_text,
                "problems": scores.problems or ([said.detail] if said.detail else []),
            }
        )
    return light, full


def _chips(values: Mapping[str, float]) -> list[list[Any]]:
    """Short labels with number and tone."""
    if "qa_accuracy" in values or "temporal_accuracy" in values:
        words = {"qa_accuracy": "answer", "temporal_accuracy": "time", "spatial_accuracy": "region"}
        return [_verdict(word, values[name]) for name, word in words.items() if name in values]
    chips = [_verdict("answer", values["accuracy"])] if "accuracy" in values else []
    for name, word in (("mIoU", "tIoU"), ("mIoP", "IoP"), ("J", "J"), ("F", "F"), ("J&F", "J&F"), ("vIoU", "vIoU")):
        if name in values:
            chips.append([word, f"{100 * values[name]:.1f}", ""])
    if "EBA@0.5" in values:
        chips.append(
            ["backed by evidence" if values["EBA@0.5"] else "not backed at 0.5", None, _tone(values["EBA@0.5"])]
        )
    return chips


def _verdict(word: str, value: float) -> list[Any]:
    return [f"{word} {'right' if value else 'wrong'}", None, _tone(value)]


def _tone(value: float) -> str:
    return "good" if value else "bad"


def _masks(masks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    out = []
    for mask in masks:
        rle = mask["rle"]
        if rle is not None and mask["frame"] >= 0:
            counts = rle["counts"]
            text = counts.decode("ascii") if isinstance(counts, bytes) else counts
            out.append({"f": mask["frame"], "s": list(rle["size"]), "c": text})
    return out


def _mcq_options(row: Mapping[str, Any], folder: Path, stem: str) -> dict[str, Any]:
    (folder / stem).parent.mkdir(exist_ok=True)
    paths = []
    for letter, image in zip(LETTERS, row["spatial_options"], strict=False):
        paths.append(f"{stem}_{letter}.jpg")
        image.convert("RGB").save(folder / paths[-1], quality=88)
    return {
        "temporal_options": row["temporal_options"],
        "temporal_answer": row["temporal_answer"],
        "spatial_options": paths,
        "spatial_answer": row["spatial_answer"],
    }
