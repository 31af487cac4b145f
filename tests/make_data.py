"""Small benchmarks in the published layout, made of a few rectangles."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

HEIGHT, WIDTH, FRAMES = 48, 64, 12


def box(x: int, y: int, w: int = 16, h: int = 12, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    mask[max(0, y) : max(0, y + h), max(0, x) : max(0, x + w)] = True
    return mask


ROWS = [
    # entry, video, question, candidates, answer, segments
    ("clip1_0", "clip1", "what moves", ["a box", "a ball"], "a box", [[0.0, 1.0]]),
    ("clip1_1", "clip1", "when does it stop", ["early", "late", "never"], "late", [[0.5, 1.0], [1.5, 2.0]]),
    ("clip2_0", "clip2", "how many", ["1", "2", "3", "4", "5"], "2", [[0.2, 1.7]]),
]


def write_gen(
    root: Path, rows: list[tuple] = ROWS, *, masks: bool = True, columns: dict[str, str] | None = None
) -> Path:
    """``st_evidence_gen`` below ``root``, without clips; ``columns`` renames published columns."""
    home = root / "st_evidence_gen"
    home.mkdir(parents=True, exist_ok=True)
    write_csv(home / "st_evidence_gen.csv", rows, columns)
    for number, (entry, *_) in enumerate(rows if masks else []):
        folder = home / "masks" / entry
        folder.mkdir(parents=True)
        for frame in range(FRAMES):
            Image.fromarray(box(2 * frame + number, 8).astype(np.uint8) * 255).save(folder / f"{frame:05d}.png")
    return home


def write_csv(path: Path, rows: list[tuple], columns: dict[str, str] | None = None, **extra: str) -> None:
    names = ["entry_id", "video_id", "video_path", "question", "candidates", "answer", "segment", *extra]
    names = [(columns or {}).get(name, name) for name in names]
    with open(path, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(names)
        for entry, video, question, candidates, answer, segments in rows:
            cells = [entry, video, f"videos_6fps/{video}.mp4", question, repr(candidates), answer, repr(segments)]
            writer.writerow([*cells, *extra.values()])


def write_mcq(root: Path, rows: list[tuple] = ROWS, columns: dict[str, str] | None = None) -> Path:
    """``st_evidence_mcq`` below ``root``: the right time is option B, the right region option C."""
    home = root / "st_evidence_mcq"
    (home / "options").mkdir(parents=True)
    write_csv(home / "st_evidence_mcq.csv", rows, columns)
    temporal: dict[str, Any] = {}
    spatial: dict[str, Any] = {}
    for entry, *_, segments in rows:
        temporal[entry] = {
            "time_evidence_options": [[[0.0, 0.1]], segments, [[1.8, 1.9]], [[0.3, 0.4]]],
            "correct_answer": "B",
        }
        (home / "options" / entry).mkdir()
        for number, key in enumerate(("d1", "d2", "gt", "d3")):
            image = Image.new("RGB", (WIDTH, HEIGHT), (40 * number, 90, 120))
            ImageDraw.Draw(image).rectangle((5 * number, 5, 5 * number + 12, 20), outline="red")
            image.save(home / "options" / entry / f"{key}.jpg")
        spatial[entry] = {
            "entry_id": entry,
            **{key: f"options/{entry}/{key}.jpg" for key in ("gt", "d1", "d2", "d3")},
            "options": ["d1", "d2", "gt", "d3"],
            "answer": 2,
        }
    (home / "temp_options.json").write_text(json.dumps(temporal))
    (home / "mask_options.json").write_text(json.dumps(spatial))
    return home


def benchmark(entries: int = 12, *, seed: int = 0) -> list[dict[str, Any]]:
    """Rows as a dataset would give them, entirely in memory."""
    from evqa import masks

    generator = np.random.default_rng(seed)
    rows = []
    for i in range(entries):
        start = float(generator.uniform(0, 1))
        rows.append(
            {
                "entry_id": f"e{i:03d}",
                "video_id": f"v{i // 2}",
                "video": None,
                "fps": 6.0,
                "num_frames": FRAMES,
                "duration": FRAMES / 6,
                "height": HEIGHT,
                "width": WIDTH,
                "question": f"question {i}",
                "candidates": ["one", "two", "three", "four"],
                "answer": ["one", "two", "three", "four"][i % 4],
                "answer_index": i % 4,
                "segments": [[start, start + 0.8]],
                "masks": [
                    {"frame": t, "time": t / 6, "rle": masks.encode(box(2 * t + i % 5, 6 + i % 3))}
                    for t in range(0, FRAMES, 2)
                ],
                "metadata": json.dumps({"question_type": ["what", "when"][i % 2]}),
                "temporal_options": [[[0.0, 0.1]], [[start, start + 0.8]], [[1.8, 1.9]], [[0.3, 0.4]]],
                "temporal_answer": 1,
                "spatial_answer": i % 4,
            }
        )
    return rows
