"""Kill runs of every kind, at any moment; continue them; nothing is lost, nothing is done twice. Alone and in ranks."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from api_helpers import candidates, chat
from make_data import benchmark
from scripted_server import ScriptedServer

from evqa.runlog import RunLog
from evqa.scoring import score
from evqa.types import Prediction

pytest.importorskip("av")
if "forkserver" not in multiprocessing.get_all_start_methods():
    pytest.skip("processes cannot be forked here", allow_module_level=True)

HERE = Path(__file__).parent
COUNT = 13  # shared by two ranks: 7 and 6


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    from evqa.video import write_clip

    path = tmp_path_factory.mktemp("clip") / "c.mp4"
    write_clip(path, np.full((6, 48, 64, 3), 90, np.uint8), 6.0)
    return str(path)


@pytest.fixture(scope="module")
def context():
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parent), *filter(None, [before])])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["child_kinds"])
    yield context
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def where(tmp_path_factory, clip):
    """Servers that answer each entry in its own way, a model, and a first run for step two."""

    def openai(method, path, body):
        time.sleep(0.01)
        text = json.dumps(body["messages"])
        number = int(text.split("question ")[1].split("\\n")[0])
        return (
            chat("ABCD"[number % 4])
            if "time span" in text
            else chat(json.dumps({"answer": "ABCD"[number % 4], "segments": [[0, 1]]}))
        )

    def gemini(method, path, body):
        time.sleep(0.01)
        number = int(json.dumps(body["contents"]).split("question ")[1].split("\\n")[0])
        return candidates(json.dumps({"answer": "ABCD"[number % 4], "segments": [[0.5, 1]]}))

    home = tmp_path_factory.mktemp("where")
    found = {}
    said = [
        Prediction(r["entry_id"], answer="A", referring_expressions=["box" * (1 + i % 3)])
        for i, r in enumerate(benchmark(COUNT))
    ]
    (home / "said.jsonl").write_text("".join(json.dumps(p.to_json()) + "\n" for p in said))
    found["source"] = str(home / "said.jsonl")
    with ScriptedServer(openai) as first, ScriptedServer(gemini) as second:
        found["openai"], found["gemini"] = f"{first.url}/v1", second.url
        yield found


def recorded(folder: Path) -> list[str]:
    """Entries of all whole lines, in the order in which they were written; one that stands twice is there twice."""
    out = []
    for path in sorted((folder / "records").glob("rank-*.jsonl")):
        for line in path.read_bytes().split(b"\n")[:-1]:
            value = json.loads(line)
            if "prediction" in value:
                out.append(value["prediction"]["entry_id"])
    return out


def start(context, kind, clip, folder, where, **environment):
    import child_kinds

    keys = {"OPENAI_API_KEY": "none", "GEMINI_API_KEY": "none", "OMP_NUM_THREADS": "1"}
    arguments = (kind, clip, COUNT, str(folder), where, {**keys, **environment})
    process = context.Process(target=child_kinds.work, args=arguments)
    process.start()
    return process


def kill_when(process, folder, records: int, delay: float) -> bool:
    """Kill it once it has written so many records and a moment more; whether it was still alive."""
    end = time.monotonic() + 60
    while process.is_alive() and len(recorded(folder)) < records and time.monotonic() < end:
        time.sleep(0.002)
    time.sleep(delay)
    alive = process.is_alive()
    if alive:
        os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    return alive


def finish(process):
    process.join(120)
    assert process.exitcode == 0


def facts(folder):
    """What a run says, without how long it took."""
    log = RunLog.open(folder).predictions()
    return {entry: {k: v for k, v in log[entry].to_json().items() if k != "seconds"} for entry in log}


@pytest.mark.parametrize("kind", ["openai", "openai-mcq", "gemini", "segment", "chance", "local"])
def test_killed_at_random_and_continued(context, clip, where, tmp_path, kind, tmp_path_factory):
    if kind == "local":
        pytest.importorskip("transformers")
        import tiny_vlm

        where = {**where, "local": str(tiny_vlm.save("video_llama_3", tmp_path_factory.mktemp("model")))}
    finish(start(context, kind, clip, tmp_path / "whole", where))
    dice = random.Random(kind)
    killed = 0
    for _ in range(2 if kind == "local" else 3):
        there = len(recorded(tmp_path / "run"))
        process = start(context, kind, clip, tmp_path / "run", where)
        killed += kill_when(process, tmp_path / "run", there + dice.randrange(1, 5), dice.random() * 0.02)
    finish(start(context, kind, clip, tmp_path / "run", where))
    assert killed or kind == "chance"  # chance is done before anybody can kill it
    done = recorded(tmp_path / "run")
    assert sorted(done) == [f"e{i:03d}" for i in range(COUNT)]  # each exactly once
    assert facts(tmp_path / "run") == facts(tmp_path / "whole")
    rows = benchmark(COUNT)
    task = "mcq" if kind.endswith("mcq") else "gen"
    first, second = (
        score(RunLog.open(tmp_path / name).predictions(), rows, task=task, bootstrap=0) for name in ("whole", "run")
    )
    assert first.metrics() == second.metrics()


def test_one_of_two_ranks_dies_and_rejoins(context, clip, where, tmp_path):
    def rank(number):
        return start(context, "segment", clip, tmp_path / "run", where, RANK=str(number), WORLD_SIZE="2")

    finish(start(context, "segment", clip, tmp_path / "whole", where))
    first, second = rank(0), rank(1)
    assert kill_when(second, tmp_path / "run" / "records" / "..", 2, 0.005)
    again = rank(1)  # while the other goes on
    finish(first)
    finish(again)
    files = sorted(p.name for p in (tmp_path / "run" / "records").glob("*.jsonl"))
    assert files == ["rank-00000.jsonl", "rank-00001.jsonl"]
    counts = [path.read_text().count('"prediction"') for path in sorted((tmp_path / "run" / "records").glob("*.jsonl"))]
    assert counts == [7, 6]  # an uneven tail
    assert sorted(recorded(tmp_path / "run")) == [f"e{i:03d}" for i in range(COUNT)]
    assert facts(tmp_path / "run") == facts(tmp_path / "whole")


def test_torchrun_restarts_a_dead_rank(tmp_path):
    """Rank 1 kills itself once; torchrun starts both again, and they go on where they were."""
    pytest.importorskip("torch")
    script = tmp_path / "ranks.py"
    script.write_text(
        "import os, signal, sys\n"
        f"sys.path[:0] = [{str(HERE)!r}, {str(HERE.parent)!r}]\n"
        "from pathlib import Path\n"
        "from make_data import benchmark\n"
        "from evqa.adapters import load_adapter\n"
        "from evqa.engine import run\n"
        "from evqa.runlog import ShardWriter\n"
        f"mark, append, count = Path({str(tmp_path / 'died')!r}), ShardWriter.append, [0]\n"
        "def dying(self, prediction):\n"
        "    append(self, prediction)\n"
        "    count[0] += 1\n"
        "    if os.environ['RANK'] == '1' and count[0] == 3 and not mark.exists():\n"
        "        mark.touch()\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "ShardWriter.append = dying\n"
        f"run(load_adapter('chance'), benchmark({COUNT}), {str(tmp_path / 'run')!r}, batch_size=2, progress=False)\n"
    )
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--max-restarts",
        "1",
        "--standalone",
    ]
    done = subprocess.run(
        [*command, "--monitor-interval", "0.1", str(script)], capture_output=True, text=True, timeout=180,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "died").exists()
    assert sorted(recorded(tmp_path / "run")) == [f"e{i:03d}" for i in range(COUNT)]
    sessions = (tmp_path / "run" / "records" / "rank-00001.jsonl").read_text().count('"session"')
    assert sessions == 2
