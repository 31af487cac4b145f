"""Building and reading a video segmentation corpus, against a plain loader that keeps all annotations in memory.

    python benchmarks/corpora.py                 2,000 clips made here, in the layout of MeViS
    python benchmarks/corpora.py --clips 200     fewer

Measured: rows a second to build; samples a second to read 8 random frames with the masks of all objects at 768 x 768,
through one and two data-loader workers; and the memory of a worker, with all clips and with a quarter of them.

The plain loader does what the training code of this field does: ``json.load`` of both files into Python objects, one
record for each expression, PIL for the frames, pycocotools for the masks, ``torchvision``'s bilinear resize and
``> 0``. Both loaders read the same positions of the same rows; that they give the same masks, but for the resize, is
checked first. Workers are started afresh (``spawn``; Python 3.14's own default, ``forkserver``, does so too): with
``fork`` a plain loader's copy comes page by page, as reference counts are touched.

Memory is what a worker holds for itself (anonymous pages) beyond a worker with the same libraries that reads nothing:
annotations and the pixels of a sample. A dataset's cached files are pages that the system shares and takes back.
Ratios are from one run; absolute figures are for scale. Where others use the machine too, processor time is the fairer
measure.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from PIL import Image
from pycocotools import mask as coco

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout need not be installed
import evqa
from evqa.corpora.reading import read_clip

HEIGHT, WIDTH, FRAMES, OBJECTS, EXPRESSIONS = 480, 854, 36, 3, 4
SIDE, READ, DISTINCT = 768, 8, 8
SAMPLES = 40


# ------------------------------------------------------------------------------------- made-up corpus
def make(root: Path, clips: int) -> Path:
    """``mevis/train``: clips of 36 frames with 3 objects and 4 expressions. Only 8 clips' pixels differ."""
    rng = np.random.default_rng(0)
    home = root / "mevis" / "train"
    names = [f"{number:05d}" for number in range(FRAMES)]
    for clip in range(DISTINCT):
        folder = root / "pixels" / str(clip)
        folder.mkdir(parents=True)
        # Soft structure and a little noise: compresses as photographs do.
        coarse = rng.integers(0, 255, (30, 54, 3), dtype=np.uint8)
        picture = np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).astype(np.int16)
        for number, name in enumerate(names):
            frame = np.roll(picture, 3 * number, axis=1) + rng.integers(-9, 10, picture.shape, dtype=np.int16)
            Image.fromarray(frame.clip(0, 255).astype(np.uint8)).save(folder / f"{name}.jpg", quality=90)
    masklets = [masklet(rng) for _ in range(16)]
    videos, masks = {}, {}
    (home / "JPEGImages").mkdir(parents=True)
    for clip in range(clips):
        video = f"{clip:06d}"
        os.symlink(root / "pixels" / str(clip % DISTINCT), home / "JPEGImages" / video)
        ids = [clip * OBJECTS + number for number in range(OBJECTS)]
        for number in ids:
            masks[str(number)] = masklets[(number * 7) % len(masklets)]
        expressions = {
            str(key): {
                "exp": f"what moves {key}",
                "obj_id": ids[: 1 + key % OBJECTS],
                "anno_id": ids[: 1 + key % OBJECTS],
            }
            for key in range(EXPRESSIONS)
        }
        videos[video] = {"frames": names, "expressions": expressions, "vid_id": clip}
    (home / "meta_expressions.json").write_text(json.dumps({"videos": videos}))
    (home / "mask_dict.json").write_text(json.dumps(masks))
    return root


def masklet(rng: np.random.Generator) -> list[dict[str, Any] | None]:
    """A shape with a ragged outline that wanders; absent in a tenth of the frames."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] - rng.uniform((120, 200), (360, 500))[:, None, None]
    angle, edge = np.arctan2(y, x), 1.0
    for wave in range(6):
        edge = edge + rng.uniform(0.03, 0.12) * np.sin((3 + 5 * wave) * angle + rng.uniform(0, 6.3))
    shape = (np.hypot(y, x) < rng.uniform(50, 130) * edge).astype(np.uint8)
    out: list[dict[str, Any] | None] = []
    for number in range(FRAMES):
        rle = coco.encode(np.asfortranarray(np.roll(shape, 2 * number, axis=1)))
        out.append(None if number % 10 == 9 else {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()})
    return out


# -------------------------------------------------------------------------------------------- loaders
class Plain:
    """Everything in memory, as Python objects."""

    def __init__(self, root: Path):
        home = root / "mevis" / "train"
        listed = json.loads((home / "meta_expressions.json").read_text())["videos"]
        masks = json.loads((home / "mask_dict.json").read_text())
        self.rows = [
            {
                "frames": [str(home / "JPEGImages" / video / f"{name}.jpg") for name in record["frames"]],
                "masks": [masks[str(number)] for number in item["anno_id"]],
            }
            for video, record in listed.items()
            for item in record["expressions"].values()
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, place: int, positions: list[int]) -> tuple[np.ndarray, np.ndarray]:
        import torch
        from torchvision.transforms import functional

        row = self.rows[place]
        frames = [
            np.asarray(Image.open(row["frames"][at]).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))
            for at in positions
        ]
        shapes = np.zeros((len(row["masks"]), len(positions), HEIGHT, WIDTH), dtype=np.float32)
        for one, masks in enumerate(row["masks"]):
            for to, at in enumerate(positions):
                if masks[at] is not None:
                    shapes[one, to] = coco.decode(masks[at])
        resized = functional.resize(torch.from_numpy(shapes), [SIDE, SIDE]) > 0
        return np.stack(frames), resized.numpy()


class Ours:
    """Rows in Arrow, mapped from a file."""

    def __init__(self, rows: Any):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, place: int, positions: list[int]) -> tuple[np.ndarray, np.ndarray]:
        clip = read_clip(self.rows[place], positions, (SIDE, SIDE))
        return clip.frames, clip.masks


class Nothing:
    """Reads nothing: what a worker weighs with the libraries of a loader."""

    libraries: ClassVar[dict[str, tuple[str, ...]]] = {
        "plain": ("torch", "torchvision.transforms.functional"),
        "evqa": ("torch", "datasets", "evqa.corpora.reading"),
    }

    def __init__(self, name: str):
        self.name = name

    def read(self, place: int, positions: list[int]) -> tuple[np.ndarray, np.ndarray]:
        for library in self.libraries[self.name]:
            importlib.import_module(library)
        return np.zeros((1, 1, 1, 3), np.uint8), np.zeros((1, 1, 1, 1), bool)


class Samples:
    """What a data loader asks: sample ``k`` is the same for every loader."""

    def __init__(self, loader: Any, rows: int):
        self.loader, self.rows = loader, rows

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, k: int) -> tuple[float, float, int]:
        """A sum over what was read, the processor's seconds for it, and the memory of this process with it."""
        start = time.process_time()
        frames, masks = self.loader.read(*sample(k, self.rows))
        spent = time.process_time() - start
        return float(frames[:, ::64, ::64].mean() + masks[..., ::64, ::64].mean()), spent, own_memory()


def sample(k: int, rows: int) -> tuple[int, list[int]]:
    rng = np.random.default_rng(k)
    return int(rng.integers(rows)), sorted(rng.choice(FRAMES, READ, replace=False).tolist())


def own_memory() -> int:
    """Anonymous bytes of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not say how much memory a process has for itself")


class Figures(NamedTuple):
    """Samples a second; the processor's milliseconds for one; the most bytes that a worker had."""

    rate: float
    spent: float
    memory: int


def through_workers(loader: Any, rows: int, workers: int) -> Figures:
    """Read all samples; each worker's first is not counted, because it loads libraries."""
    import torch
    from torch.utils.data import DataLoader

    torch.set_num_threads(1)
    data = DataLoader(
        Samples(loader, rows), batch_size=None, num_workers=workers, multiprocessing_context="spawn", prefetch_factor=2,
    )  # fmt: skip
    arrived, spent, most = [], [], 0
    for _, seconds, memory in data:
        arrived.append(time.perf_counter())
        spent.append(seconds)
        most = max(most, memory)
    first = 2 * workers
    rate = (len(arrived) - first) / (arrived[-1] - arrived[first - 1])
    return Figures(rate, 1e3 * statistics.mean(spent[first:]), most)


# ------------------------------------------------------------------------------------------ measuring
def build(root: Path, cache: Path) -> Any:
    start, processor = time.perf_counter(), time.process_time()
    rows = evqa.load_dataset("mevis", data_dir=str(root), split="train", cache_dir=str(cache))
    spent, processor = time.perf_counter() - start, time.process_time() - processor
    print(
        f"  build: {len(rows) / spent:.0f} rows a second, {1e3 * processor / len(rows):.1f} ms of processor time each"
    )
    return rows


def check(plain: Plain, ours: Ours) -> None:
    """Same masks at the frames' own size; frames that hardly differ."""
    for k in range(4):
        place, positions = sample(k, len(plain))
        clip = read_clip(ours.rows[place], positions)
        for one, masks in enumerate(plain.rows[place]["masks"]):
            for to, at in enumerate(positions):
                theirs = np.zeros((HEIGHT, WIDTH), bool) if masks[at] is None else coco.decode(masks[at]) > 0
                if (clip.masks[one, to] != theirs).any():
                    raise SystemExit("the two loaders disagree on a mask")
        difference = np.abs(ours.read(place, positions)[0].astype(int) - plain.read(place, positions)[0]).mean()
        if difference > 2:
            raise SystemExit(f"the two loaders disagree on the frames, by {difference:.1f} levels")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2000)
    clips = parser.parse_args().clips
    import datasets
    import torch

    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        base = {name: through_workers(Nothing(name), 1, 1).memory for name in Nothing.libraries}
        for name, memory in base.items():
            print(f"a worker with the libraries of {name} that reads nothing: {memory / 2**20:.0f} MiB")
        for count in (clips // 4, clips):
            found = measure(Path(folder), count, base, (1, 2) if count == clips else (1,))
        for workers in (1, 2):
            plain, ours = found["plain", workers], found["evqa", workers]
            print(
                f"{workers} workers, evqa against plain: {ours.rate / plain.rate:.1f} x the samples a second, "
                f"{plain.spent / ours.spent:.1f} x less processor time, "
                f"{(plain.memory - base['plain']) / (ours.memory - base['evqa']):.1f} x less memory for data"
            )


def measure(
    folder: Path, clips: int, base: dict[str, int], with_workers: Sequence[int]
) -> dict[tuple[str, int], Figures]:
    """Make, build, check, read."""
    start = time.perf_counter()
    root = make(folder / str(clips), clips)
    made = time.perf_counter() - start
    size = (root / "mevis" / "train" / "mask_dict.json").stat().st_size
    rows_of_clips = clips * EXPRESSIONS
    print(
        f"{clips} clips of {FRAMES} frames, {rows_of_clips} rows, {size / 1e6:.0f} MB of masks (made in {made:.0f} s)"
    )
    rows = build(root, folder / f"cache{clips}")
    loaders = {"plain": Plain(root), "evqa": Ours(rows)}
    check(loaders["plain"], loaders["evqa"])
    found = {}
    for workers in with_workers:
        for name, loader in loaders.items():
            one = found[name, workers] = through_workers(loader, len(rows), workers)
            print(
                f"  {name:5}, {workers} workers: {one.rate:5.1f} samples a second, {one.spent:4.0f} ms of processor "
                f"time each, {one.memory / 2**20:4.0f} MiB a worker, {(one.memory - base[name]) / 2**20:4.0f} for data"
            )
    return found


if __name__ == "__main__":
    main()
