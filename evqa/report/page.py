"""The evidence page: one folder with an HTML page that opens from disk and shows what a system saw.

Layout::

    index.html                    the page
    assets/                       its style and scripts
    data/index.js                 scores, and what list, filters and plots need of each entry
    data/entries/00000.js         one entry's masks, segments and text; read when it scrolls into view
    posters/00000.jpg             one small picture per entry, shown until its clip is loaded
    clips/  options/              video and images

Every part has a bound: per entry and run :data:`~evqa.report.entries.MASK_BUDGET` characters of masks and
:data:`~evqa.report.entries.TEXT_BUDGET` of text, posters of 320 x 320 pixels at most, and clips of at most
:data:`~evqa.report.clips.CLIP_BUDGET` bytes. The page's last line says what it came to.

Data are scripts, not JSON files, because a page opened from disk may run scripts but not fetch files.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from evqa._files import cleared, write_atomic
from evqa.errors import DataError, EvqaError
from evqa.report.clips import CLIP_BUDGET, ClipStore
from evqa.report.entries import entry_data, option_images
from evqa.report.table import _finite
from evqa.scoring.aggregate import Scores, metric_groups, score
from evqa.scoring.protocols import EVQA_V1, STRICT
from evqa.types import Prediction

__all__ = ["page_size", "write_report"]

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
    clip_budget: int = CLIP_BUDGET,
) -> Path:
    """Write the page.

    Args:
        runs: Name of a system -> its predictions by entry.
        references: Rows of the benchmark; each is read once.
        folder: Gets the page. A page that is there is replaced; a folder with anything else in it is refused.
        task: ``gen`` or ``mcq``.
        title: Heading.
        bootstrap: Resamplings for the intervals.
        clip_budget: Bytes that a clip may have; a larger one is made smaller, 0 leaves all clips out.

    Returns:
        The path of ``index.html``.

    Raises:
        DataError: No runs, or ``folder`` holds something else or is being written.
    """
    if not runs:
        raise DataError("there is no run to report on")
    with cleared(folder, _OURS, "index.html") as folder:
        scored = {name: _scores(predictions, references, task, bootstrap) for name, predictions in runs.items()}
        _write(folder, runs, references, scored, task, title, clip_budget)
    return folder / "index.html"


def _write(
    folder: Path,
    runs: Mapping[str, Mapping[str, Prediction]],
    references: Any,
    scored: Mapping[str, Mapping[str, Any]],
    task: str,
    title: str,
    clip_budget: int,
) -> None:
    """Fill an empty folder."""
    clips = ClipStore(folder, budget=clip_budget)
    entries = []
    for number, row in enumerate(tqdm(references, desc="page", unit="entry", disable=None)):  # None: in a terminal only
        file = f"data/entries/{number:05d}.js"
        media = {
            "clip": clips.add(row.get("video"), row["video_id"]),
            "poster": clips.poster(row.get("video"), _moment(row), f"posters/{number:05d}.jpg"),
        }
        light, full = entry_data(row, runs, scored, media)
        if task == "mcq":
            full |= option_images(row, folder, f"options/{number:05d}")
        _script(folder / file, f"evqaPage.entry({json.dumps(row['entry_id'])}, ", full)
        entries.append({**light, "file": file})
    shutil.copytree(_ASSETS, folder / "assets", ignore=shutil.ignore_patterns("index.html"))
    videos = len({entry["video_id"] for entry in entries})
    index = {
        "title": title,
        "task": task,
        "subtitle": f"{_count(len(entries), 'question')} about {_count(videos, 'clip')}, task {task}. "
        f"Numbers in brackets are 95 % bootstrap intervals over clips.",
        "protocols": _protocols(task, next(iter(scored.values()))[STRICT]),
        "runs": [{"name": name, "scores": {p: _numbers(s) for p, s in scored[name].items()}} for name in runs],
        "entries": entries,
    }
    index["footer"] = f"Made by evqa. {_size_text(folder, index, len(entries))}.{_problem_text(clips.problems)}"
    _script(folder / "data" / "index.js", "evqaPage.index(", index)
    # Last: a folder with an index.html is a whole page.
    write_atomic(folder / "index.html", (_ASSETS / "index.html").read_bytes())


def _moment(row: Mapping[str, Any]) -> float:
    """The second that the page opens an entry at: the middle of its first segment."""
    start, end = (row["segments"] or [(0.0, 0.0)])[0]
    return (start + end) / 2


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _protocols(task: str, first: Scores) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "about": about,
            "groups": [
                {"title": title, "metrics": [metric for metric in metrics if metric in first]}
                for title, metrics in metric_groups(task, name).items()
            ],
        }
        for name, about in _ABOUT.items()
    ]


def _problem_text(problems: list[str]) -> str:
    if not problems:
        return ""
    return f" {_count(len(problems), 'clip')} could not be shown as in the data: {problems[0]}."


def page_size(folder: str | os.PathLike) -> dict[str, int]:
    """Bytes of a page by part: ``clips``, ``posters``, ``data``, ``options``, ``assets``, and ``total``."""
    folder = Path(folder)
    sizes = {
        part: sum(file.stat().st_size for file in (folder / part).rglob("*") if file.is_file())
        for part in sorted(_OURS - {"index.html"})
    }
    return {**sizes, "total": sum(sizes.values())}


def _size_text(folder: Path, index: Mapping[str, Any], entries: int) -> str:
    sizes = page_size(folder)
    data = sizes["data"] + len(_text("", index))  # the index is not written yet
    total = sizes["total"] - sizes["data"] + data
    rest = (total - sizes["clips"]) / max(1, entries)
    return (
        f"The folder holds {total / 1e6:.1f} MB: {sizes['clips'] / 1e6:.1f} MB of clips, and {rest / 1e3:.0f} kB an "
        "entry of everything else"
    )


_OURS = {"index.html", "assets", "data", "clips", "options", "posters"}


def _script(path: Path, call: str, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_text(call, value), "ascii")


def _text(call: str, value: Any) -> str:
    return call + json.dumps(_finite(value), separators=(",", ":"), ensure_ascii=True) + ");\n"


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
