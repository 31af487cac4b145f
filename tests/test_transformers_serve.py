"""The ``openai`` adapter against a real server: ``transformers serve`` in a process of its own, with a tiny Qwen2.5-VL."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
import tiny_vlm
from make_data import benchmark
from PIL import Image

from evqa.adapters import load_adapter
from evqa.engine import run
from evqa.scoring import score

for module in ("av", "transformers", "fastapi", "uvicorn", "openai"):
    pytest.importorskip(module)

PATIENCE = 180.0


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Address and model of a server whose model says B to everything, and one whose words are random."""
    home = tmp_path_factory.mktemp("served")
    models = {
        "sure": tiny_vlm.save("qwen2_5_vl", home / "sure", says="B"),
        "random": tiny_vlm.save("qwen2_5_vl", home / "random"),
    }
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", "--device", "cpu", "--host", "127.0.0.1"]
    with open(home / "log", "w") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port)], stdout=log, stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    try:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    pytest.fail(f"the server did not start: {(home / 'log').read_text()[-2000:]}")
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1", models
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    from evqa.video import write_clip

    clip = tmp_path_factory.mktemp("clip") / "c.mp4"
    frames = np.zeros((12, 48, 64, 3), np.uint8)
    frames[..., 1] = 20 * np.arange(12)[:, None, None]
    write_clip(clip, frames, 6.0)
    pictures = [Image.new("RGB", (32, 24), colour) for colour in ("red", "blue", "green", "white")]
    return [{**r, "video": {"path": str(clip), "bytes": None}, "spatial_options": pictures} for r in benchmark(4)]


def test_both_tasks_with_frames_as_images(server, rows, tmp_path):
    url, models = server

    def go(name, folder, task="gen", **options):
        options = {
            "frames": "uniform:3",
            "max_side": 64,
            "concurrency": 2,
            "timeout": PATIENCE,
            "max_tokens": 6,
            **options,
        }
        adapter = load_adapter(f"openai:{models[name]}", base_url=url, **options)
        return run(adapter, rows, tmp_path / folder, task=task, progress=False).log.predictions()

    said = go("sure", "gen")
    assert [said[row["entry_id"]].raw_text for row in rows] == ["B"] * 4
    assert score(said, rows, bootstrap=0)["accuracy"] == 25.0
    chosen = go("sure", "mcq", "mcq")
    scores = score(chosen, rows, bootstrap=0)
    assert scores["temporal_accuracy"] == 100.0  # B is the right time span of every row
    assert scores["spatial_accuracy"] == 25.0
    assert all(p.seconds > 0 and p.usage["output_tokens"] == 6 for p in chosen.values())  # three times B and the end
    # Frames are seen: each costs tokens, and words that are not fixed depend on them.
    shown = [go("random", f"random{n}", frames=f"uniform:{n}", max_tokens=12)["e000"] for n in (1, 3, 6, 12)]
    tokens = [one.usage["input_tokens"] for one in shown]
    assert all(more >= fewer + 4 for fewer, more in itertools.pairwise(tokens))
    assert len({one.raw_text for one in shown}) > 1
    assert {one.status for one in shown} == {"truncated"}  # the server says when the limit cut a reply
    assert {one.usage["output_tokens"] for one in shown} == {12 + 24}  # asked for once more, with twice as much
