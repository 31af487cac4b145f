"""How long 32 frames of a clip take: evqa's isolated read against the same decoders in this process.

    python benchmarks/video.py [clip ...]

Without clips, one is made: 20 s of moving texture, 854 x 480. The baseline is a plain PyAV loop in this process
that decodes the clip from its start and converts 32 evenly spaced frames to RGB. All rows are measured in turn,
in one run; only the ratios carry over to other machines.
"""

from __future__ import annotations

import itertools
import os
import pathlib
import statistics
import sys
import tempfile
import time

import av
import numpy as np

from evqa.video import Uniform, installed_backends, isolation, probe, read_frames, write_clip

FRAMES, ROUNDS = 32, 5
_names = itertools.count()


def sequential(path, info):
    """The baseline."""
    wanted = set(Uniform(FRAMES).positions(info).tolist())
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        decoded = enumerate(container.decode(video=0))
        return np.stack([picture.to_ndarray(format="rgb24") for i, picture in decoded if i in wanted])


def plain_decord(path, info):
    import decord

    return decord.VideoReader(str(path)).get_batch(Uniform(FRAMES).positions(info).tolist()).asnumpy()


def ours(**settings):
    def read(path, info):
        return read_frames(path, Uniform(FRAMES).times(info), **settings)

    return read


def cold(path, info):
    isolation.shutdown()
    return read_frames(path, Uniform(FRAMES).times(info))


def rows():
    yield "PyAV, in this process, sequential (baseline)", sequential, True
    if "decord" in installed_backends():
        yield "decord, in this process", plain_decord, True
    yield "evqa, isolated, default", ours(), True
    yield "evqa, isolated, default, same clip again", ours(), False
    yield "evqa, isolated, default, new child process", cold, True
    yield "evqa, isolated, pyav", ours(backend="pyav"), True
    if "torchcodec" in installed_backends():
        yield "evqa, isolated, torchcodec", ours(backend="torchcodec"), True
    yield "evqa, in this process, default", ours(isolate=False), True


def measure(path, folder):
    info = probe(path)
    print(
        f"\n{path.name}: {info.num_frames} frames, {info.duration:.1f} s, {info.width} x {info.height}; "
        f"{FRAMES} frames, median of {ROUNDS}"
    )
    table = list(rows())
    seconds = {name: [] for name, _, _ in table}
    failures = {}
    for round_ in range(ROUNDS + 1):
        for name, read, fresh in table:
            alias = path
            if fresh:  # A new name is a new clip: nothing that was remembered helps.
                alias = folder / f"{next(_names)}{path.suffix}"
                os.symlink(path.resolve(), alias)
            else:
                read(path, info)
            start = time.perf_counter()
            try:
                frames = read(alias, info)
            except Exception as error:
                failures[name] = str(error).split("]")[-1].strip()[:60] or type(error).__name__
                continue
            if round_:  # The first round is for imports and the disk's cache.
                seconds[name].append(time.perf_counter() - start)
            assert len(frames) == min(FRAMES, info.num_frames)
    baseline = statistics.median(seconds[table[0][0]])
    for name, values in seconds.items():
        if name in failures:
            print(f"  {name:48s} cannot: {failures[name]}")
            continue
        median = statistics.median(values)
        print(f"  {name:48s} {1000 * median:8.0f} ms   {median / baseline:5.2f} x baseline")


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        paths = [pathlib.Path(name) for name in sys.argv[1:]]
        if not paths:
            rows_, columns = np.mgrid[:480, :854]
            paths = [folder / "made.mp4"]
            write_clip(
                paths[0],
                (
                    np.stack([columns + 3 * i, rows_ + 2 * i, rows_ + columns + i], axis=-1).astype(np.uint8)
                    for i in range(500)
                ),
                25,
            )
        for path in paths:
            measure(path, folder)


if __name__ == "__main__":
    main()
