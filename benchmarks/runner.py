"""How much faster the runner is than a plain loop, for a model behind a network and for one on this machine.

    python benchmarks/runner.py [--quick]

Network: a server on the loopback interface that takes 2 seconds for each reply (``--quick``: 0.5), asked 16 at a time
about a small clip, against one request after the other. Local: a tiny VideoLLaMA 3 through transformers that writes
as many tokens as take about as long as decoding and preprocessing its clip, against doing both in turn; baseline and
runner take turns too, and the runner's rate is that after its worker processes have started. Memory: of a run over many
entries and over a few.
"""

from __future__ import annotations

import argparse
import json
import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # the local model is to use one core
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from make_data import benchmark
from scripted_server import ScriptedServer, sleeping

from evqa.adapters import load_adapter
from evqa.engine import run
from evqa.video import write_clip

REPLY = {
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": '{"answer": "A"}'}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


def local_adapter(folder: Path, tokens: int) -> Any:
    """VideoLLaMA 3 with random weights that writes so many tokens, on one core."""
    options = {"device": "cpu", "frames": "fps:6", "max_side": 56, "min_pixels": 0, "max_pixels": 56 * 56}
    return load_adapter(f"video_llama_3:{folder}", max_tokens=tokens, **options)


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
    print(
        f"network, {latency:g} s a reply: 16 at a time {plain / fast:.1f}x the entries per second of one at a time "
        f"({len(rows)} entries in {fast * len(rows):.1f} s); load {os.getloadavg()[0]:.1f}"
    )


def local(folder: Path, clip: Path, count: int, rounds: int) -> None:
    import tiny_vlm
    import torch

    torch.set_num_threads(1)
    model = tiny_vlm.save("video_llama_3", folder / "model")
    rows = named(entries(clip, count))
    probe = local_adapter(model, 16)
    decoding = min(timed(lambda: probe.prepare(rows[0], "gen")) for _ in range(15))
    requests = list(probe.prepare(rows[0], "gen").requests.values())
    few, many = (
        min(timed(lambda n=n: probe._engine.generate(requests, max_tokens=n)) for _ in range(8)) for n in (1, 33)
    )
    # An entry is asked for twice, because a random model does not end: the second time with twice as many tokens.
    tokens = max(1, round((decoding - 2 * few) / (many - few) * 32 / 3))
    adapter = local_adapter(model, tokens)
    prepared = [adapter.prepare(rows[0], "gen") for _ in range(8)]
    answering = min(timed(lambda one=one: adapter.predict([one], "gen")) for one in prepared)

    def plain() -> None:
        for row in rows:
            adapter.predict([adapter.prepare(row, "gen")], "gen")

    ratios: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for k in range(rounds):
        for workers, found in ratios.items():
            slow = timed(plain) / len(rows)
            adapter.workers = workers
            run(adapter, rows, folder / f"local{k}-{workers}", progress=False)
            found.append(slow / seconds_per_entry(folder / f"local{k}-{workers}"))
    for workers, found in ratios.items():
        tell_local(workers, found, decoding, answering, tokens)


def seconds_per_entry(folder: Path) -> float:
    """Of a run, without its first quarter: that is when workers start."""
    lines = map(json.loads, next((folder / "records").glob("*.jsonl")).read_text().splitlines())
    written = [line["written"] for line in lines if "prediction" in line]
    skip = len(written) // 4
    return (written[-1] - written[skip]) / (len(written) - skip - 1)


def tell_local(workers: int, ratios: list[float], decoding: float, answering: float, tokens: int) -> None:
    how = f"{workers} worker processes" if workers else "threads"
    print(
        f"local, {how}: {sorted(ratios)[len(ratios) // 2]:.2f}x the entries per second of a plain loop, median of "
        f"{len(ratios)} pairs [{min(ratios):.2f} - {max(ratios):.2f}]; preparing {1000 * decoding:.0f} ms, generating "
        f"{1000 * answering:.0f} ms ({tokens} tokens); {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )


def memory(folder: Path, clip: Path, count: int) -> None:
    peaks = []
    for n in (count // 10, count):
        command = [sys.executable, __file__, "--child", str(clip), str(n), str(folder / "model")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(float(done.stdout))
    print(f"peak memory: {peaks[0]:.0f} MiB over {count // 10} entries, {peaks[1]:.0f} MiB over {count}"
          f" ({peaks[1] / peaks[0]:.2f}x)")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.child:
            rows = named(entries(Path(arguments.child[0]), int(arguments.child[1])))
            run(local_adapter(Path(arguments.child[2]), 1), rows, folder / "run", progress=False)
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            return
        clip = folder / "clip.mp4"
        noise = np.random.default_rng(0).integers(0, 60, (40, 240, 426, 3), dtype=np.uint8)
        write_clip(clip, noise + np.arange(40, dtype=np.uint8)[:, None, None, None] * 4, 6.0)
        small = folder / "small.mp4"
        write_clip(small, noise[:12, :48, :64], 6.0)
        network(folder, small, 48 if arguments.quick else 96, 0.5 if arguments.quick else 2.0)
        local(folder, clip, 24 if arguments.quick else 48, 1 if arguments.quick else 5)
        memory(folder, clip, 40 if arguments.quick else 200)


if __name__ == "__main__":
    main()
