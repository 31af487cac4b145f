"""How much faster the runner is than a plain loop, for a model behind a network and for one on this machine.

    python benchmarks/runner.py [--quick] [network] [local] [memory]

Network: a server on the loopback interface that takes 2 seconds for each reply (``--quick``: 0.5), asked 16 at a time
about a small clip, against one request after the other.

Local: a tiny VideoLLaMA 3 through transformers that writes as many tokens as take about as long as decoding and
preprocessing its clip, against doing both in turn; baseline and runner take turns too. The runner is timed from the
first entry to the last, its worker processes and their decoders being there, unless a line says otherwise. The clip
is a folder of JPEG frames, which one core decodes, or an H.264 file, which a decoder spreads over the cores even in a
plain loop. What no runner can exceed is measured beside it: two plain loops at once, each in a process of its own,
against one of them alone. What was measured while other programs were busy is measured again.

Memory: of a run over many entries and over a few.
"""

from __future__ import annotations

import argparse
import contextlib
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
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from make_data import benchmark
from scripted_server import ScriptedServer, sleeping

from evqa import answering
from evqa.adapters import load_adapter
from evqa.engine import run
from evqa.prefetch import Preparers
from evqa.video import write_clip

REPLY = {
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": '{"answer": "A"}'}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


def local_adapter(folder: Path, tokens: int) -> Any:
    """VideoLLaMA 3 with random weights that writes so many tokens, on one core."""
    options = {"device": "cpu", "frames": "fps:6", "max_side": 56, "min_pixels": 0, "max_pixels": 56 * 56}
    return load_adapter(f"video_llama_3:{folder}", max_tokens=tokens, **options)


def entries(video: Any, count: int) -> list[dict]:
    return [{**row, "video": video} for row in benchmark(4) for _ in range(-(-count // 4))][:count]


def file(path: Path | str) -> dict:
    return {"path": str(path), "bytes": None}


def named(rows: list[dict]) -> list[dict]:
    return [{**row, "entry_id": f"entry_{i}"} for i, row in enumerate(rows)]


class Disturbed(Exception):  # noqa: N818 - a reason to measure again
    """Other programs took more than a tenth of a core meanwhile."""


class Stretch:
    """A stretch of time that is to be undisturbed."""

    def __init__(self) -> None:
        self._others, self.begun = others(), time.time()

    def seconds(self, end: float | None = None) -> float:
        """Length up to now, or up to an end shortly before now."""
        now, busy = time.time(), others() - self._others
        if busy > 0.1 * (now - self.begun):
            raise Disturbed
        return (end or now) - self.begun


def timed(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def timed_alone(function) -> float:
    stretch = Stretch()
    function()
    return stretch.seconds()


def network(folder: Path, clip: Path, count: int, latency: float) -> None:
    rows = named(entries(file(clip), count))
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


class Started(Preparers):
    """Lets a run begin when its worker processes and their decoders have started."""

    stretch: Any = None

    def __enter__(self) -> Preparers:
        if self._workers:
            self.start().result()
        for prepared in [self.submit(0) for _ in range(self.width)]:
            prepared()
        Started.stretch = Stretch()
        return self


def others() -> float:
    """Processor seconds of all that runs on this machine and did not come from here, so far."""
    names = [name for name in os.listdir("/proc") if name.isdigit()] if Path("/proc/stat").exists() else []
    parents, used = {}, {}
    for name in names:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            parents[name], used[name] = fields[1], sum(map(int, fields[11:15]))  # with children that have ended
    ours = {str(os.getpid())}
    while more := {name for name, parent in parents.items() if parent in ours} - ours:
        ours |= more
    busy = [int(n) for n in Path("/proc/stat").read_text().split()[1:9]] if names else [0] * 8
    ticks = sum(busy) - busy[3] - busy[4] - sum(used.get(name, 0) for name in ours)
    return ticks / os.sysconf("SC_CLK_TCK")


def undisturbed(measure: Any, patience: float = 1800) -> Any:
    """What ``measure`` returns, as soon as nothing else is running."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        with contextlib.suppress(Disturbed):
            timed_alone(lambda: time.sleep(1))
            return measure()
    raise SystemExit("other programs keep this machine busy; nothing can be measured")


def plain(adapter: Any, rows: list[dict], batch: int) -> None:
    """The loop that anybody would write."""
    for i in range(0, len(rows), batch):
        adapter.predict([adapter.prepare(row, "gen") for row in rows[i : i + batch]], "gen")


class Loop:
    """The plain loop in a process of its own."""

    def __init__(self, *what: Any):
        command = [sys.executable, __file__, "--loop", json.dumps(what)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._process.stdout.readline()

    @staticmethod
    def go(loops: list[Loop]) -> None:
        """Let some run until all are through."""
        for loop in loops:
            print(file=loop._process.stdin, flush=True)
        for loop in loops:
            loop._process.stdout.readline()

    def close(self) -> None:
        self._process.communicate()


def loop_child(model: str, tokens: int, video: dict, count: int, batch: int) -> None:
    import torch

    torch.set_num_threads(1)
    adapter, rows = local_adapter(Path(model), tokens), named(entries(video, count))
    plain(adapter, rows[:batch], batch)
    print(flush=True)
    for _ in sys.stdin:
        plain(adapter, rows, batch)
        print(flush=True)


def balance(model: Path, row: dict, batch: int) -> tuple[float, float, int]:
    """Seconds of preparing an entry and of answering it, and how many tokens make the two alike."""
    stretch = Stretch()
    probe = local_adapter(model, 16)
    decoding = min(timed(lambda: probe.prepare(row, "gen")) for _ in range(15))
    requests = [request for _ in range(batch) for request in probe.prepare(row, "gen").requests.values()]
    few, many = (
        min(timed(lambda n=n: probe._engine.generate(requests, max_tokens=n)) for _ in range(8)) for n in (1, 33)
    )
    # An entry is asked for twice, because a random model does not end: the second time with twice as many tokens.
    tokens = max(1, round((decoding * batch - 2 * few) / (many - few) * 32 / 3))
    adapter = local_adapter(model, tokens)
    prepared = [[adapter.prepare(row, "gen") for _ in range(batch)] for _ in range(8)]
    answered = min(timed(lambda some=some: adapter.predict(some, "gen")) for some in prepared) / batch
    stretch.seconds()
    return decoding, answered, tokens


def local(model: Path, name: str, video: dict, count: int, rounds: int, batch: int, ways: dict[str, Any]) -> None:
    rows = named(entries(video, count))
    decoding, answered, tokens = undisturbed(lambda: balance(model, rows[0], batch))
    adapter = local_adapter(model, tokens)
    print(
        f"local, {name}, batches of {batch}: preparing {1000 * decoding:.0f} ms, generating {1000 * answered:.0f} ms "
        f"an entry ({tokens} tokens); {os.cpu_count()} cores"
    )
    loops = [Loop(str(model), tokens, video, count, batch) for _ in range(2)]
    ratios: dict[str, list[float]] = {"two plain loops at once": [], **{way: [] for way in ways}}

    def two() -> float:
        alone = timed_alone(lambda: Loop.go(loops[:1]))
        return 2 * alone / timed_alone(lambda: Loop.go(loops))

    def pair(workers: int, preparers: Any) -> float:
        slow = timed_alone(lambda: plain(adapter, rows, batch))
        adapter.workers, answering.Preparers = workers, preparers
        with tempfile.TemporaryDirectory() as folder:
            stretch = Stretch()
            run(adapter, rows, folder, progress=False, batch_size=batch)
            stretch = stretch if preparers is Preparers else Started.stretch
            return slow / stretch.seconds(last_written(Path(folder)))

    for _ in range(rounds):
        ratios["two plain loops at once"].append(undisturbed(two))
        for way, how in ways.items():
            ratios[way].append(undisturbed(lambda how=how: pair(*how)))
    for loop in loops:
        loop.close()
    for way, found in ratios.items():
        found.sort()
        print(
            f"  {way}: {found[len(found) // 2]:.2f}x the entries per second of a plain loop, median of "
            f"{len(found)} pairs [{found[0]:.2f} - {found[-1]:.2f}]"
        )


def last_written(folder: Path) -> float:
    """When the last entry of a run was recorded."""
    lines = map(json.loads, next((folder / "records").glob("*.jsonl")).read_text().splitlines())
    return max(line["written"] for line in lines)


def all_local(model: Path, clip: Path, frames: dict, count: int, rounds: int) -> None:
    """Both kinds of clips one by one, and frames in batches."""
    import torch

    torch.set_num_threads(1)
    threads, one, two = (
        {"threads": (0, Started)},
        {"1 worker process": (1, Started)},
        {"2 worker processes": (2, Started)},
    )
    cold = {"2 worker processes, their start included": (2, Preparers)}
    local(model, "a folder of frames", frames, count, rounds, 1, threads | one | two | cold)
    local(model, "a folder of frames", frames, count, rounds, 4, two)
    local(model, "an H.264 file", file(clip), count, rounds, 1, threads | two)


def memory(model: Path, clip: Path, count: int) -> None:
    peaks = []
    for n in (count // 10, count):
        command = [sys.executable, __file__, "--child", str(clip), str(n), str(model)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(float(done.stdout))
    print(f"peak memory: {peaks[0]:.0f} MiB over {count // 10} entries, {peaks[1]:.0f} MiB over {count}"
          f" ({peaks[1] / peaks[0]:.2f}x)")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="network local memory", default=["network", "local", "memory"])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--loop", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.loop:
        loop_child(*json.loads(arguments.loop))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.child:
            rows = named(entries(file(arguments.child[0]), int(arguments.child[1])))
            run(local_adapter(Path(arguments.child[2]), 1), rows, folder / "run", progress=False)
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            return
        import tiny_vlm

        clip = folder / "clip.mp4"
        noise = np.random.default_rng(0).integers(0, 60, (40, 240, 426, 3), dtype=np.uint8)
        noise += np.arange(40, dtype=np.uint8)[:, None, None, None] * 4
        write_clip(clip, noise, 6.0)
        small = folder / "small.mp4"
        write_clip(small, noise[:12, :48, :64], 6.0)
        names = [f"{i:05d}.jpg" for i in range(len(noise))]
        for frame, to in zip(noise, names, strict=True):
            Image.fromarray(frame).resize((640, 360)).save(folder / to, quality=95)
        frames = {"folder": str(folder), "names": names, "times": [i / 6 for i in range(len(noise))]}
        model = tiny_vlm.save("video_llama_3", folder / "model")
        if "network" in arguments.parts:
            network(folder, small, 48 if arguments.quick else 96, 0.5 if arguments.quick else 2.0)
        if "local" in arguments.parts:
            all_local(model, clip, frames, 16 if arguments.quick else 48, 1 if arguments.quick else 3)
        if "memory" in arguments.parts:
            memory(model, clip, 40 if arguments.quick else 200)


if __name__ == "__main__":
    main()
