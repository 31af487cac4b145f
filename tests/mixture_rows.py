"""Rows of every record with real frames on disk, for tests of training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from make_data import box
from PIL import Image

from evqa import masks
from evqa.types import features

HEIGHT, WIDTH, FRAMES = 24, 32, 12


def colour(number: int) -> tuple[int, int, int]:
    """A frame's colour tells its number."""
    return (10 * number, 255 - 10 * number, 7)


def write_frames(folder: Path, frames: int = FRAMES) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{i:05d}.png" for i in range(frames)]
    for number, name in enumerate(names):
        Image.new("RGB", (WIDTH, HEIGHT), colour(number)).save(folder / name)
    return {"folder": str(folder), "names": names, "times": [i / 4 for i in range(frames)]}


def masklet(x: int, frames: Any = range(FRAMES)) -> list[dict[str, Any]]:
    """A box that starts at ``x`` and goes one pixel to the right in each frame."""
    return [{"frame": i, "time": i / 4, "rle": masks.encode(box(x + i, 4, 6, 5, HEIGHT, WIDTH))} for i in frames]


def segmentation_row(folder: Path, number: int, **changes: Any) -> dict[str, Any]:
    row = {
        "entry_id": f"clip/{number}", "corpus": "revos", "video_id": "clip", "expression_id": str(number),
        "expression": f"The box number {number}.", "kind": "query", "answer": None, "num_frames": FRAMES,
        "height": HEIGHT, "width": WIDTH, "frames": write_frames(folder), "video": None, "video_name": None,
        "stride": None, "frame_numbers": None,
        "objects": [{"object_id": "1", "masks": masklet(2)}, {"object_id": "2", "masks": masklet(14)}],
        "regions": None, "metadata": "{}",
    }  # fmt: skip
    return {**row, **changes}


def instruct_row(folder: Path, number: int, **changes: Any) -> dict[str, Any]:
    row = {
        "entry_id": f"ask_{number}", "video_id": "clip", "video": None, "fps": 4.0, "num_frames": FRAMES,
        "duration": FRAMES / 4, "height": HEIGHT, "width": WIDTH, "question": "What moves?",
        "candidates": ["a ball", "a box", "a cat"], "answer": "a box", "answer_index": 1,
        "segments": [[0.5, 1.25], [2.0, 2.96]], "frames": write_frames(folder),
        "objects": [
            {"object_id": "1", "expression": "the left box", "boxes": [], "masks": masklet(2, range(4))},
            {"object_id": "2", "expression": "the right box", "boxes": [], "masks": masklet(14)},
        ],
        "metadata": "{}",
    }  # fmt: skip
    return {**row, **changes}


def chat_row(number: int, content: str = "Say hello.", **changes: Any) -> dict[str, Any]:
    row = {
        "entry_id": f"chat/{number}", "corpus": "llava_instruct", "source_id": None,
        "messages": [{"role": "user", "content": content}, {"role": "assistant", "content": f"Hello {number}."}],
        "image_names": [], "video_names": [], "images": None, "videos": None, "duration": None,
        "metadata": json.dumps({}),
    }  # fmt: skip
    return {**row, **changes}


def image_row(folder: Path, number: int) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"image_{number}.png"
    Image.fromarray(np.full((8, 10, 3), number, np.uint8)).save(path)
    return chat_row(
        number, "<image>\nWhat is it?", image_names=[path.name], images=[{"path": str(path), "bytes": None}]
    )


def dataset(record: str, rows: list[dict[str, Any]]):
    import datasets

    return datasets.Dataset.from_list(rows, features=features(record))
