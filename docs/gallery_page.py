"""Makes what docs/gallery.md shows: one question of each clip of the embedded sample, and the evidence page of all.

Called by docs/conf.py while the site is built; nothing of it is stored in the repository.
"""

from __future__ import annotations

import html
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

import evqa
from evqa import masks
from evqa.adapters import load_adapter
from evqa.engine import run
from evqa.report import write_report
from evqa.video import Clip

BLUE = (37, 99, 235)
GAP = 8  # pixels between frames
FRAMES = 3


def make(pictures: Path, page: Path) -> str:
    """Draw the pictures, write the evidence page, and return the gallery's Markdown.

    Args:
        pictures: Gets a JPEG for each clip.
        page: Gets the evidence page.
    """
    datasets.disable_progress_bars()
    rows = evqa.load_dataset("evqa/st_evidence", "sample", split="test")
    write_evidence(rows, page)
    shutil.rmtree(pictures, ignore_errors=True)
    pictures.mkdir(parents=True)
    parts, seen = [], set()
    for row in rows:
        if row["video_id"] not in seen:
            seen.add(row["video_id"])
            Image.fromarray(strip(row)).save(pictures / f"{row['video_id']}.jpg", quality=85)
            parts.append(entry(row, f"{pictures.name}/{row['video_id']}.jpg"))
    return "\n".join(parts)


def write_evidence(rows: Any, page: Path) -> None:
    """The page that ``evqa demo`` writes."""
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            name: run(load_adapter(name), rows, Path(folder) / name, progress=False).log.predictions()
            for name in ("chance", "oracle")
        }
        write_report(runs, rows, page, task="gen", title="The sample benchmark: floor and ceiling")


def strip(row: Mapping[str, Any]) -> np.ndarray:
    """Frames of the evidence side by side: the objects in light, outlined in blue, all else dimmed.

    Returns:
        uint8 ``[height, width of all, 3]``.
    """
    shown = [mask for mask in row["masks"] if not masks.is_empty(mask["rle"])]
    chosen = [shown[round(at * (len(shown) - 1))] for at in np.linspace(0.1, 0.9, FRAMES)]
    frames = Clip(row["video"]).frames([mask["time"] for mask in chosen])
    parts = []
    for frame, mask in zip(frames, chosen, strict=True):
        here = masks.decode(mask["rle"]).astype(bool)
        lit = np.where(here[..., None], frame, (0.45 * frame + 60).astype(np.uint8))
        lit[grown(here, 3) & ~here] = BLUE
        parts += [lit, np.full((len(lit), GAP, 3), 255, np.uint8)]
    return np.concatenate(parts[:-1], axis=1)


def grown(mask: np.ndarray, by: int) -> np.ndarray:
    """A mask and all pixels at most ``by`` away from it, sideways and up and down."""
    padded = np.pad(mask, by)
    height, width = mask.shape
    reach = range(2 * by + 1)
    wide = np.any([padded[:, x : x + width] for x in reach], axis=0)
    return np.any([wide[y : y + height] for y in reach], axis=0)


def entry(row: Mapping[str, Any], picture: str) -> str:
    """One question: its options, the frames, and the time line."""
    options = " · ".join(
        f"**{option}**" if index == row["answer_index"] else option for index, option in enumerate(row["candidates"])
    )
    bars = "".join(
        f'<rect x="{100 * start / row["duration"]:.2f}" width="{100 * (end - start) / row["duration"]:.2f}" '
        'y="0" height="6" fill="#2563eb"/>'
        for start, end in row["segments"]
    )
    said = ", ".join(f"{start:.1f} to {end:.1f} s" for start, end in row["segments"])
    link = f"evidence/index.html#entry={row['entry_id']}"
    return f"""## {row["question"]}

{options}

![Frames of {row["video_id"]} with the proof outlined in blue]({picture})

<svg viewBox="0 0 100 6" preserveAspectRatio="none" width="100%" height="12" role="img"
aria-label="The proof is at {said}"><rect width="100" height="6" fill="#9ca3af" fill-opacity="0.35"/>{bars}</svg>

Proof at {said} of {row["duration"]:.1f} s. <a href="{html.escape(link)}">Play it, with the predictions of chance</a>
"""
