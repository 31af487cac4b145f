"""What tests of models behind a network share: rows with a clip, replies in the servers' forms, and a run."""

from __future__ import annotations

import json

import numpy as np
import pytest
from make_data import benchmark
from PIL import Image

from evqa.adapters import load_adapter
from evqa.engine import run

KEY = "sk-" + "secret" * 4


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    pytest.importorskip("av")
    from evqa.video import write_clip

    clip = tmp_path_factory.mktemp("clip") / "c.mp4"
    frames = np.zeros((12, 48, 64, 3), np.uint8)
    frames[..., 1] = 20 * np.arange(12)[:, None, None]
    write_clip(clip, frames, 6.0)
    picture = Image.new("RGB", (32, 24), "red")
    return [{**r, "video": {"path": str(clip), "bytes": None}, "spatial_options": [picture] * 4} for r in benchmark(6)]


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)


def chat(text, finish="stop", **message):
    return 200, {}, {
        "id": "x", "object": "chat.completion", "created": 0, "model": "m",
        "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    }  # fmt: skip


GOOD = json.dumps({"answer": "B", "segments": [[0.5, 1.0]], "referring_expressions": ["the box"]})


def go(url, rows, folder, task="gen", *, name="openai:m", retries=2, pauses=None, **options):
    options = {
        "base_url": f"{url}/v1" if name.startswith("openai") else url,
        "timeout": 5.0,
        "concurrency": 1,
        **options,
    }
    adapter = load_adapter(name, **options)
    pauses = [] if pauses is None else pauses
    return run(adapter, rows, folder, task=task, retries=retries, progress=False, sleep=pauses.append)


def candidates(text, finish="STOP", thought=None):
    parts = ([{"text": thought, "thought": True}] if thought else []) + ([{"text": text}] if text is not None else [])
    return 200, {}, {
        "candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": finish}],
        "usageMetadata": {"promptTokenCount": 500, "candidatesTokenCount": 20, "thoughtsTokenCount": 30},
    }  # fmt: skip
