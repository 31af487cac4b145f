"""Does scoring stay flat as a benchmark grows, and how much faster is it than the usual way?

    python benchmarks/scoring.py               1,300 entries with 60 mask frames each
    python benchmarks/scoring.py --quick       130 entries with 20 frames

Makes a benchmark and predictions, scores them with ``evqa.scoring.score`` in processes of their own at a quarter, half
and all of the entries, and prints time per entry and peak memory of each, as ratios to the quarter. The baseline, in
the same run: the same masks as 8-bit PNG folders, read with PIL and scored with the textbook implementation of
``benchmarks/jf.py``, over a few entries.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]
from jf import synthetic_pairs, textbook_jf

from evqa import masks
from evqa.runlog import read_records
from evqa.scoring import score
from evqa.types import Prediction

SIZE = (480, 854)
PREDICTIONS = "predictions.jsonl"


def make(folder: Path, entries: int, frames: int) -> None:
    """A reference and predictions as JSON lines; every entry gets frames of its own out of a pool of mask pairs."""
    pool = [(masks.encode(p), masks.encode(r)) for p, r in synthetic_pairs(40)]
    dice = np.random.default_rng(0)
    with open(folder / "reference.jsonl", "w") as right, open(folder / PREDICTIONS, "w") as said:
        for i in range(entries):
            pairs = [pool[k] for k in dice.integers(0, len(pool), frames)]
            start = float(dice.uniform(0, 5))
            row = {
                "entry_id": f"entry_{i}", "video_id": f"video_{i // 2}", "candidates": ["a", "b", "c", "d", "e"],
                "answer": "abcde"[i % 5], "segments": [[start, start + 4]],
                "masks": [{"frame": t, "time": t / 6, "rle": masks.to_json(r)} for t, (_, r) in enumerate(pairs)],
            }  # fmt: skip
            right.write(json.dumps(row) + "\n")
            found = [{"frame": t, "time": None, "rle": p} for t, (p, _) in enumerate(pairs)]
            prediction = Prediction(f"entry_{i}", answer="A", segments=[[start, start + 3]], masks=found)
            said.write(json.dumps(prediction.to_json()) + "\n")


def rows(path: Path, entries: int):
    with open(path) as handle:
        for _, line in zip(range(entries), handle, strict=False):
            yield json.loads(line)


def measure(folder: Path, entries: int) -> dict[str, float]:
    """Score the first entries in a process of its own: milliseconds per entry and peak memory in MiB."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", str(folder), str(entries)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def child(folder: Path, entries: int) -> None:
    score([Prediction("x", answer="A")], [{"entry_id": "x", "answer": "a", "candidates": ["a"]}])  # imports, warm-up
    start = time.perf_counter()
    predictions = read_records([folder / PREDICTIONS])
    scores = score(predictions, rows(folder / "reference.jsonl", entries), bootstrap=1000)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"ms": 1000 * seconds / entries, "mib": peak / 1024, "J&F": scores["J&F"]}))


def baseline(folder: Path, entries: int, frames: int) -> float:
    """Milliseconds per entry of PNG folders read with PIL and scored with the textbook implementation."""
    predictions = read_records([folder / PREDICTIONS])
    listed = []
    for row in rows(folder / "reference.jsonl", entries):
        places = (folder / "png" / row["entry_id"] / "p", folder / "png" / row["entry_id"] / "r")
        for place, found in zip(places, (predictions[row["entry_id"]].masks, row["masks"]), strict=True):
            place.mkdir(parents=True)
            for mask in found:
                masks.to_png(masks.normalize(mask["rle"]), place / f"{mask['frame']:05d}.png")
        listed.append(places)
    start = time.perf_counter()
    for predicted, reference in listed:
        values = []
        for file in sorted(predicted.iterdir()):
            pair = [np.asarray(Image.open(path / file.name).convert("L")) > 0 for path in (predicted, reference)]
            values.append(textbook_jf(*pair))
        np.mean(values, axis=0)
    return 1000 * (time.perf_counter() - start) / entries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(Path(arguments.child[0]), int(arguments.child[1]))
        return
    entries, frames = (130, 20) if arguments.quick else (1300, 60)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, entries, frames)
        size = (folder / PREDICTIONS).stat().st_size / 1e6
        print(f"{entries} entries of {frames} frames at {SIZE[0]} x {SIZE[1]}, {size:.0f} MB of predictions")
        results = {n: measure(folder, n) for n in (entries // 4, entries // 2, entries)}
        first = results[entries // 4]
        for n, got in results.items():
            print(
                f"{n:6} entries: {got['ms']:6.2f} ms an entry ({got['ms'] / first['ms']:.2f}x), peak memory "
                f"{got['mib']:.0f} MiB ({got['mib'] / first['mib']:.2f}x)"
            )
        few = max(2, entries // 130)
        usual = baseline(folder, few, frames)
        print(f"baseline, PNG folders + PIL + textbook ({few} entries): {usual:.0f} ms an entry; evqa is "
              f"{usual / results[entries]['ms']:.0f}x faster")  # fmt: skip


if __name__ == "__main__":
    main()
