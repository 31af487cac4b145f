"""How many times faster the mask kernel is than a textbook implementation of J and F.

    python benchmarks/jf.py                    masks made here, shaped like real ones
    python benchmarks/jf.py --davis FOLDER     DAVIS-like folders: Annotations/480p/*/ and predictions_*/*/ of PNGs
    python benchmarks/jf.py --quick            fewer masks and rounds

Only ratios are reported: they are measured in one run and one thread, with baseline and candidate taking turns, so
that what else the machine does weighs on both. Every score is compared with the baseline's before anything is timed.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout need not be installed
from evqa import masks
from evqa.scoring import kernel

SIZES = ((480, 854), (720, 1280))
Pair = tuple[np.ndarray, np.ndarray]  # predicted and reference mask, uint8 [h, w], 0 or 1


# ------------------------------------------------------------------------------------- textbook baseline
def textbook_boundary(mask: np.ndarray) -> np.ndarray:
    right, below, diagonal = mask.copy(), mask.copy(), mask.copy()
    right[:, :-1] = mask[:, 1:]
    below[:-1] = mask[1:]
    diagonal[:-1, :-1] = mask[1:, 1:]
    diagonal[-1, :-1] = mask[-1, 1:]
    diagonal[:-1, -1] = mask[1:, -1]
    return (mask ^ right) | (mask ^ below) | (mask ^ diagonal)


def textbook_jf(predicted: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """J by logical operations on decoded masks, F by dilating each boundary with the tolerance disk."""
    predicted, reference = predicted.astype(bool), reference.astype(bool)
    union = np.logical_or(predicted, reference).sum()
    if union == 0:
        return 1.0, 1.0
    j = float(np.logical_and(predicted, reference).sum() / union)
    radius = int(np.ceil(0.008 * np.linalg.norm(predicted.shape)))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = (x * x + y * y <= radius * radius).astype(np.uint8)
    predicted, reference = textbook_boundary(predicted), textbook_boundary(reference)
    near_predicted = cv2.dilate(predicted.astype(np.uint8), disk)
    near_reference = cv2.dilate(reference.astype(np.uint8), disk)
    predicted_size, reference_size = predicted.sum(), reference.sum()
    if predicted_size == 0 or reference_size == 0:
        return j, float(predicted_size == reference_size)
    precision = float((predicted * near_reference).sum() / predicted_size)
    recall = float((reference * near_predicted).sum() / reference_size)
    total = precision + recall
    return j, 2 * precision * recall / total if total else 0.0


def score(counts: Sequence[int]) -> tuple[float, float]:
    pred_area, ref_area, common, pred_boundary, ref_boundary, pred_matched, ref_matched = map(int, counts)
    if not pred_area or not ref_area:
        return float(pred_area == ref_area), float(pred_area == ref_area)
    j = common / (pred_area + ref_area - common)
    if not pred_boundary or not ref_boundary:
        return j, float(pred_boundary == ref_boundary)
    precision, recall = pred_matched / pred_boundary, ref_matched / ref_boundary
    total = precision + recall
    return j, 2 * precision * recall / total if total else 0.0


# ------------------------------------------------------------------------------------------------ masks
def synthetic_pairs(count: int, seed: int = 0) -> list[Pair]:
    """Bodies with limbs at 480 x 854, and predictions that are wrong in the ways in which models are."""
    rng = np.random.default_rng(seed)
    pairs = []
    for index in range(count):
        reference = _body(rng, 480, 854)
        predicted = _degrade(rng, reference, kind=index % 4)
        pairs.append((predicted, reference))
    return pairs


def _body(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    size = rng.uniform(0.6, 0.85) * height
    centre = np.array([rng.uniform(0.3, 0.7) * width, rng.uniform(0.42, 0.58) * height])
    axes = (int(0.13 * size), int(0.22 * size))
    cv2.ellipse(mask, _point(centre), axes, float(rng.uniform(-30, 30)), 0, 360, 1, -1)
    cv2.circle(mask, _point(centre + size * np.array([rng.uniform(-0.05, 0.05), -0.3])), int(0.075 * size), 1, -1)
    for angle in (0.3, 0.7, 1.2, 1.8):  # limbs of three tapering segments
        position, direction = centre.copy(), angle * np.pi + rng.normal(0, 0.2)
        for thickness in (0.085, 0.06, 0.035):
            following = position + size * 0.17 * np.array([np.cos(direction), np.sin(direction)])
            cv2.line(mask, _point(position), _point(following), 1, max(int(thickness * size), 2))
            position, direction = following, direction + rng.normal(0, 0.5)
    return _roughen(rng, mask, pixels=1.5, smoothness=7.0)


def _roughen(rng: np.random.Generator, mask: np.ndarray, pixels: float, smoothness: float) -> np.ndarray:
    """Move the outline in and out by about ``pixels``, in waves about ``smoothness`` long."""
    inside = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    outside = cv2.distanceTransform(1 - mask, cv2.DIST_L2, 5)
    noise = cv2.GaussianBlur(rng.standard_normal(mask.shape).astype(np.float32), (0, 0), smoothness)
    return (inside - outside + noise * (pixels / noise.std()) > 0).astype(np.uint8)


def _degrade(rng: np.random.Generator, mask: np.ndarray, kind: int) -> np.ndarray:
    size = int(rng.integers(2, 11))
    element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * size + 1, 2 * size + 1))
    if kind == 0:
        mask = cv2.erode(mask, element)
    elif kind == 1:
        mask = cv2.dilate(mask, element)
    elif kind == 2:
        mask = np.roll(mask, (int(rng.integers(-14, 15)), int(rng.integers(-14, 15))), (0, 1))
    else:  # a coarse outline, and a part of the object that was missed
        mask = cv2.resize(
            cv2.resize(mask, None, fx=1 / 16, fy=1 / 16), mask.shape[::-1], interpolation=cv2.INTER_LINEAR
        )
        y, x = np.argwhere(mask)[rng.integers(mask.sum())]
        cv2.circle(mask, (int(x), int(y)), 60, 0, -1)
    return _roughen(rng, mask, pixels=1.5, smoothness=5.0)


def _point(position: np.ndarray) -> tuple[int, int]:
    return int(position[0]), int(position[1])


def davis_pairs(folder: Path) -> list[Pair]:
    """Every prediction against the annotation; without one, against the first folder of predictions."""
    pairs = []
    sources = [*sorted(folder.glob("Annotations/*")), *sorted(folder.glob("predictions_*"))]
    for clip in sorted({path.name for source in sources for path in source.iterdir() if path.is_dir()}):
        first, *others = [source / clip for source in sources if (source / clip).is_dir()]
        for other in others:
            for file in sorted(other.glob("*.png")):
                if (first / file.name).exists():
                    pairs.append(tuple(read_labels(path) for path in (file, first / file.name)))
    if not pairs:
        raise SystemExit(f"{folder} has no Annotations/*/<clip>/*.png with predictions_*/<clip>/*.png beside it")
    return pairs


def read_labels(file: Path) -> np.ndarray:
    return (np.asarray(Image.open(file)) > 0).astype(np.uint8)


# ------------------------------------------------------------------------------------------ measurement
def seconds_each(function: Callable, items: Sequence) -> list[float]:
    times = []
    for item in items:
        start = time.perf_counter()
        function(*item)
        times.append(time.perf_counter() - start)
    return times


def ratios(baseline: Callable, candidate: Callable, baseline_items: Sequence, items: Sequence, rounds: int):
    """Baseline over candidate, of the median times of each round; the two take turns."""
    return [
        statistics.median(seconds_each(baseline, baseline_items)) / statistics.median(seconds_each(candidate, items))
        for _ in range(rounds)
    ]


def report(name: str, values: Sequence[float], target: float | None) -> None:
    median = statistics.median(values)
    verdict = "" if target is None else f"   target {target:g}x: {'met' if median >= target else 'MISSED'}"
    print(f"  {name:<34} {median:7.1f}x   [{min(values):.1f} - {max(values):.1f}]{verdict}")


def count_native(predicted, reference):
    return score(kernel.count_pair(predicted, reference))


def count_portable(predicted, reference):
    with kernel.use_backend("portable"):
        return score(kernel.count_pair(predicted, reference))


def measure_pairs(pairs: Sequence[Pair], rounds: int) -> None:
    rles = [tuple(masks.encode(mask) for mask in pair) for pair in pairs]
    height = pairs[0][0].shape[0]
    rows = [("portable, from arrays", count_portable, pairs, 4), ("portable, from RLE", count_portable, rles, None)]
    if kernel.backend() == "native":
        rows = [
            ("native, from arrays", count_native, pairs, 20),
            ("native, from RLE", count_native, rles, 35 if height <= 480 else 60),
            *rows,
        ]
    expected = [textbook_jf(*pair) for pair in pairs]
    for name, function, items, target in rows:
        assert [function(*item) for item in items] == expected, f"{name}: scores differ from the baseline"
        report(name, ratios(textbook_jf, function, pairs, items, rounds), target)


def measure_files(pairs: Sequence[Pair], rounds: int) -> None:
    """From file to number: a clip as one JSON file of RLEs, against two folders of 8-bit PNGs."""
    with tempfile.TemporaryDirectory() as folder:
        files = write_clip(pairs, Path(folder))
        assert score_json(files["json"]) == score_pngs(files["png"]), "scores differ from the baseline"
        values = ratios(score_pngs, score_json, [(files["png"],)], [(files["json"],)], rounds)
        report(f"file to number, {kernel.backend()}", values, 50)


def write_clip(pairs: Sequence[Pair], folder: Path) -> dict[str, Path]:
    clip: dict[str, list] = {"predicted": [], "reference": []}
    for side, name in enumerate(clip):
        (folder / name).mkdir()
        for frame, pair in enumerate(pairs):
            rle = masks.encode(pair[side])
            masks.to_png(rle, folder / name / f"{frame:05d}.png")
            clip[name].append(masks.to_json(rle))
    (folder / "clip.json").write_text(json.dumps(clip))
    return {"png": folder, "json": folder / "clip.json"}


def score_pngs(folder: Path) -> list[tuple[float, float]]:
    scores = []
    for file in sorted((folder / "predicted").iterdir()):
        predicted, reference = (
            (np.array(Image.open(f).convert("L")) > 0).astype(np.uint8)
            for f in (file, folder / "reference" / file.name)
        )
        scores.append(textbook_jf(predicted, reference))
    return scores


def score_json(file: Path) -> list[tuple[float, float]]:
    clip = json.loads(file.read_bytes())
    height, width = clip["reference"][0]["size"]
    return [score(row) for row in kernel.count_clip(clip["predicted"], clip["reference"], height, width).tolist()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="8 pairs and 3 rounds instead of 28 and 9")
    parser.add_argument("--davis", type=Path, metavar="FOLDER", help="use real masks instead of synthetic ones")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    count, rounds = (8, 3) if options.quick else (28, 9)
    pairs = davis_pairs(options.davis) if options.davis else synthetic_pairs(count)
    pairs = pairs[:: max(len(pairs) // count, 1)][:count]
    counts = np.array([kernel.count_pair(*pair) for pair in pairs])
    scores = np.array([score(row) for row in counts])
    print(
        f"{len(pairs)} pairs, {rounds} rounds, backend {kernel.backend()}; reference: "
        f"{100 * np.median(counts[:, 1]) / pairs[0][1].size:.1f} % foreground, "
        f"{np.median(counts[:, 4]):.0f} boundary pixels (medians); "
        f"mean J {scores[:, 0].mean():.2f}, F {scores[:, 1].mean():.2f}"
    )
    print("times faster than the textbook baseline: median of rounds [lowest - highest]")
    gc.disable()
    for height, width in SIZES:
        print(f"{height} x {width}")
        size = (width, height)
        scaled = [tuple(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST) for mask in pair) for pair in pairs]
        measure_pairs(scaled, rounds)
        measure_files(scaled, rounds)


if __name__ == "__main__":
    main()
