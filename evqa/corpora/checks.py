"""Looking at rows, and finding what is wrong with data that can be read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evqa import masks as rle_masks
from evqa import segments as seg
from evqa.errors import MaskError

__all__ = ["describe", "validate"]


def describe(rows: Any, show: int = 3) -> str:
    """Columns, counts and the first rows, as text."""
    lines = [f"{len(rows)} rows, columns: {', '.join(rows.column_names)}"]
    light = rows.remove_columns([c for c in ("masks", "objects", "spatial_options") if c in rows.column_names])
    videos = len(set(light["video_id"]))
    lengths = [d for d in light["duration"] if d]
    lines.append(f"{videos} clips" + (f", {min(lengths):.1f} to {max(lengths):.1f} s long" if lengths else ""))
    letters = Counter("?" if i is None else chr(65 + i) for i in light["answer_index"])
    lines.append("right letters: " + ", ".join(f"{letter} {count}" for letter, count in sorted(letters.items())))
    for row in light.select(range(min(show, len(light)))):
        lines.append("")
        for name, value in row.items():
            if value not in (None, "", "{}", []):
                text = json.dumps(value, ensure_ascii=False, default=str)
                lines.append(f"  {name:16} {text if len(text) < 100 else text[:97] + '...'}")
    return "\n".join(lines)


def validate(rows: Any) -> list[str]:
    """One sentence for each thing that is readable but not right.

    Looks for answers that are none of the options, equal options, evidence that ends after the clip or is empty,
    masks of another size than the clip, masks after the clip's last frame, entries without masks where others have
    some, and clips that are gone.
    """
    light = rows.remove_columns([c for c in ("spatial_options",) if c in rows.column_names])
    problems: list[str] = []
    without_masks: list[str] = []
    with_masks = False
    for row in light:
        problems += [f"{row['entry_id']}: {problem}" for problem in _row_problems(row)]
        if row.get("masks"):
            with_masks = True
        elif "masks" in row:
            without_masks.append(row["entry_id"])
    if with_masks:
        problems += [f"{entry}: no masks, where other entries have some" for entry in without_masks]
    return problems


def _row_problems(row: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    candidates = [candidate.strip() for candidate in row["candidates"]]
    if row["answer_index"] is None:
        found.append(f"the answer {row['answer']!r} is none of the options {candidates}")
    if len(set(candidates)) < len(candidates):
        found.append(f"two options are equal: {candidates}")
    segments = row["segments"] or []
    if not segments:
        found.append("no temporal evidence")
    if seg.measure(segments) == 0 and segments:
        found.append(f"temporal evidence of length zero: {segments}")
    if row["duration"] and any(end > row["duration"] + 1 / (row["fps"] or 1) for _, end in segments):
        found.append(f"temporal evidence {segments} ends after the clip ({row['duration']:.2f} s)")
    clip = (row.get("video") or {}).get("path")
    if clip and not Path(clip).is_file():
        found.append(f"the clip {clip} is gone")
    masks = row.get("masks") or [mask for item in row.get("objects") or [] for mask in item["masks"]]
    sizes = {tuple(mask["rle"]["size"]) for mask in masks}
    if row["height"] and sizes and sizes != {(row["height"], row["width"])}:
        found.append(f"masks of {sorted(sizes)} on a clip of {row['height']}x{row['width']}")
    if row["num_frames"] and any(mask["frame"] >= row["num_frames"] for mask in masks):
        last = max(mask["frame"] for mask in masks)
        found.append(f"a mask of frame {last} on a clip of {row['num_frames']} frames")
    for mask in masks:
        try:
            rle_masks.normalize(mask["rle"])
        except MaskError as error:
            found.append(f"mask of frame {mask['frame']}: {error.message}")
    return found
