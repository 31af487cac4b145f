"""Small corpora for the tests, in the layouts that are published. Masks are encoded by pycocotools, not by evqa."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

import evqa

HEIGHT, WIDTH = 12, 20


def shape(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A mask that no other number has."""
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[1 + number % 7 : 4 + number % 7, 2 + number // 7 : 7 + number // 7] = 1
    return mask


def rle(mask: np.ndarray, counts: type = str) -> dict[str, Any]:
    """COCO RLE with counts as ``bytes``, ``str`` or ``list``."""
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    size = [int(side) for side in encoded["size"]]
    if counts is list:
        flat = mask.T.ravel() != 0
        edges = np.flatnonzero(np.diff(np.concatenate(([False], flat)).astype(int)))
        runs = np.diff(np.concatenate(([0], edges, [flat.size])))
        return {"size": size, "counts": [int(run) for run in runs]}
    return {"size": size, "counts": encoded["counts"].decode() if counts is str else encoded["counts"]}


def write_json(file: Path, value: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value))
    return file


def write_frames(folder: Path, names: Sequence[str], size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    """JPEGs whose grey level tells their place: 10, 30, 50, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, name in enumerate(names):
        Image.new("RGB", (size[1], size[0]), (10 + 20 * place,) * 3).save(folder / name, quality=95)


def videos(**listed: tuple[Sequence[str], Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """A ``meta_expressions.json`` of video -> (frames, expressions)."""
    return {
        "videos": {
            name.replace("__", "/"): {"frames": list(frames), "expressions": dict(expressions), "vid_id": number}
            for number, (name, (frames, expressions)) in enumerate(listed.items())
        }
    }


def expression(text: str, *ids: int, **more: Any) -> dict[str, Any]:
    """An expression of the MeViS form; objects and annotations have one number."""
    return {"exp": text, "obj_id": list(ids), "anno_id": list(ids), **more}


def masklet(number: int, frames: int, counts: type = str) -> list[dict[str, Any]]:
    """Masks of one object: the same in each frame."""
    return [rle(shape(number), counts) for _ in range(frames)]


def palette_png(file: Path, labels: np.ndarray) -> None:
    """A label map whose pixel is an object's id."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels.astype(np.uint8)).convert("P")
    image.putdata(labels.astype(np.uint8).ravel().tolist())
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0] + [7] * 756)
    image.save(file)


FRAMES = ("00000", "00005", "00010")


def write_mevis(root: Path) -> Path:
    """Two videos; the second has an expression of two objects. ``valid`` has no masks."""
    home = root / "mevis"
    listed = videos(
        aa=(FRAMES, {"0": expression("the cat that jumps", 0), "1": expression("both cats", 0, 1)}),
        bb=(FRAMES[:2], {"0": expression("a dog running", 2)}),
    )
    for split in ("train", "valid_u", "valid"):
        for video in ("aa", "bb"):
            names = listed["videos"][video]["frames"]
            write_frames(home / split / "JPEGImages" / video, [f"{name}.jpg" for name in names])
        if split != "valid":
            write_json(home / split / "meta_expressions.json", listed)
            masks = {"0": masklet(0, 3), "1": masklet(1, 3), "2": masklet(2, 2)}
            write_json(home / split / "mask_dict.json", masks)
    for record in listed["videos"].values():
        record["expressions"] = {key: {"exp": item["exp"]} for key, item in record["expressions"].items()}
    write_json(home / "valid" / "meta_expressions.json", listed)
    return home


def write_many(root: Path, rows: int = 150) -> Path:
    """``mevis/train`` with so many expressions: shards of at least one batch each."""
    listed = videos(aa=(["00000"], {str(number): expression(f"cat {number}", number % 5) for number in range(rows)}))
    home = root / "mevis" / "train"
    write_json(home / "meta_expressions.json", listed)
    write_json(home / "mask_dict.json", {str(number): masklet(number, 1) for number in range(5)})
    write_frames(home / "JPEGImages" / "aa", ["00000.jpg"])
    return root


def load(name: str, root: Path, split: str = "train", **options: Any) -> Any:
    """A split of a corpus on disk."""
    return evqa.load_dataset(name, data_dir=str(root), split=split, **options)


def decoded(item: Mapping[str, Any]) -> dict[int, np.ndarray]:
    """frame -> mask of one object, decoded by pycocotools."""
    return {mask["frame"]: coco.decode(mask["rle"]) for mask in item["masks"]}
