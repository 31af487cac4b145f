"""How much faster the runner is than a plain loop, for a model behind a network and for one on this machine.

    python benchmarks/runner.py [--quick]

Network: a server on the loopback interface that takes 2 seconds for each reply (``--quick``: 0.3), asked 16 at a time,
against one request after the other. Local: an adapter whose answer costs about as much as decoding its clip, both real
work on a core, against decoding and answering in turn. Memory: of a run over many entries and over a few.
"""

from __future__ import annotations

import argparse
import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # the local model is to use one core
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from make_data import benchmark
from scripted_server import ScriptedServer, sleeping

from evqa.adapters import Adapter, load_adapter
from evqa.engine import run
from evqa.types import Prediction
from evqa.video import Clip, write_clip

REPLY = {
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": '{"answer": "A"}'}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


class Local(Adapter):
    """Decodes a clip, then multiplies matrices a fixed number of times, on one core."""

    name = "local"

    def __init__(self, products: int):
        self._products = products
        self._matrix = np.random.default_rng(0).standard_normal((400, 400))

    def prepare(self, row, task):
        clip = Clip(row["video"])
        return row["entry_id"], clip.frames(clip.info.timestamps)

    def predict(self, rows, task):
        for _ in range(self._products * len(rows)):
            self._matrix @ self._matrix
        return [Prediction(entry, answer="A", usage={"frames": len(pixels)}) for entry, pixels in rows]


def entries(clip: Path, count: int) -> list[dict]:
    video = {"path": str(clip), "bytes": None}
    return [{**row, "video": video} for row in benchmark(4) for _ in range(-(-count // 4))][:count]


def named(rows: list[dict]) -> list[dict]:
    return [{**row, "entry_id": f"entry_{i}"} for i, row in enumerate(rows)]


def timed(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def network(folder: Path, clip: Path, count: int, latency: float) -> None:
    rows = named(entries(clip, count))
    with ScriptedServer(sleeping(latency, (200, {}, REPLY))) as server:

        def go(many: int, rows: list[dict]) -> float:
            adapter = load_adapter("openai:m", base_url=f"{server.url}/v1", frames="uniform:4", concurrency=many)
            return timed(lambda: run(adapter, rows, folder / f"network{many}", progress=False)) / len(rows)

        few = rows[: max(4, count // 16)]
        plain, fast = go(1, few), go(16, rows)
    print(f"network, {latency:g} s a reply: 16 at a time {plain / fast:.1f}x the entries per second of one at a time")


def local(folder: Path, clip: Path, count: int) -> None:
    rows = named(entries(clip, count))
    probe = Local(20)
    probe.prepare(rows[0], "gen")
    seconds = timed(lambda: [probe.prepare(row, "gen") for row in rows[:4]]) / 4
    product = timed(lambda: probe.predict([("x", ())] * 5, "gen")) / 100
    adapter = Local(round(seconds / product))

    def plain() -> None:
        for row in rows:
            adapter.predict([adapter.prepare(row, "gen")], "gen")

    ratios = []
    for k in range(3):
        slow = timed(plain)
        ratios.append(slow / timed(lambda k=k: run(adapter, rows, folder / f"local{k}", progress=False)))
    print(
        f"local, decoding {1000 * seconds:.0f} ms and answering as long: {sorted(ratios)[1]:.2f}x the entries per "
        f"second of a plain loop [{min(ratios):.2f} - {max(ratios):.2f}] on {os.cpu_count()} cores"
    )


def memory(clip: Path, count: int) -> None:
    peaks = []
    for n in (count // 10, count):
        done = subprocess.run(
            [sys.executable, __file__, "--child", str(clip), str(n)], capture_output=True, text=True, check=True
        )
        peaks.append(float(done.stdout))
    print(f"peak memory: {peaks[0]:.0f} MiB over {count // 10} entries, {peaks[1]:.0f} MiB over {count}"
          f" ({peaks[1] / peaks[0]:.2f}x)")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.child:
            rows = named(entries(Path(arguments.child[0]), int(arguments.child[1])))
            run(Local(1), rows, folder / "run", progress=False)
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            return
        clip = folder / "clip.mp4"
        noise = np.random.default_rng(0).integers(0, 60, (40, 240, 426, 3), dtype=np.uint8)
        write_clip(clip, noise + np.arange(40, dtype=np.uint8)[:, None, None, None] * 4, 6.0)
        network(folder, clip, 48 if arguments.quick else 96, 0.3 if arguments.quick else 2.0)
        local(folder, clip, 12 if arguments.quick else 24)
        memory(clip, 40 if arguments.quick else 200)


if __name__ == "__main__":
    main()
