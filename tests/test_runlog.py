"""The run log: what was recorded stays recorded, whatever happens to the process or the disk."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from make_data import benchmark

from evqa import masks
from evqa.errors import ManifestMismatchError, PredictionError, RunLogError
from evqa.runlog import RunLog, read_records
from evqa.scoring import score
from evqa.types import Prediction

CHILD = Path(__file__).with_name("child_run.py")
MANIFEST = {"task": "gen", "adapter": {"name": "x", "seed": 1}}


def child(folder, entries=40, seconds=0.0, **environment):
    return subprocess.Popen(
        [sys.executable, str(CHILD), str(folder), str(entries), str(seconds)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path]), **environment},
    )  # fmt: skip


def raw_lines(log):
    return [json.loads(line) for path in log.shards for line in path.read_text().splitlines()]


def entries_of(log):
    return [line["prediction"]["entry_id"] for line in raw_lines(log) if "prediction" in line]


def test_round_trip_and_merge(tmp_path):
    log = RunLog.start(tmp_path / "run", MANIFEST)
    rle = masks.encode(masks.decode(masks.empty(4, 5)))
    whole = Prediction(
        "a/ü", answer="B", segments=[[0.5, 1.0]], masks=[{"frame": 3, "time": 0.5, "rle": rle}], referring_expressions=["x"],
        raw_text="line\nline\u2028line", usage={"tokens": 3}, seconds=0.25,
        original={"entry": {"parsed_response": {"segments": [[float("nan"), 1]]}}},
    )  # fmt: skip
    with log.writer() as writer:
        writer.append(whole)
        writer.append(Prediction.failure("b", "refused", "no"))
    records = RunLog.open(tmp_path / "run").predictions()
    got = records["a/ü"]
    assert repr(got) == repr(whole)  # repr: NaN is not equal to itself
    assert records["b"].failed
    first = log.merge().read_bytes()
    assert log.merge().read_bytes() == first
    assert set(read_records([log.merge()])) == {"a/ü", "b"}


def test_thirty_kills_lose_nothing(tmp_path):
    calm = child(tmp_path / "calm", 60)
    assert calm.wait(60) == 0, calm.stderr.read()
    dice = random.Random(3)
    folder = tmp_path / "killed"
    kills = 0
    while kills < 30:
        process = child(folder, 60, 0.02)
        process.stdout.readline()  # the first entry is in work, or the run is over
        time.sleep(dice.random() * 0.05)
        process.kill()
        process.wait()
        kills += 1
    end = child(folder, 60)
    assert end.wait(60) == 0, end.stderr.read()
    log = RunLog.open(folder)
    ids = entries_of(log)
    assert len(ids) == len(set(ids)) == 60  # nothing lost, nothing twice
    sessions = sum("session" in line for line in raw_lines(log))
    assert sessions > 5  # it really was continued, many times
    rows = benchmark(60)
    a, b = (score(RunLog.open(tmp_path / name).predictions(), rows) for name in ("calm", "killed"))
    assert dict(a) == dict(b)


def test_ctrl_c_leaves_a_run_that_goes_on(tmp_path):
    process = child(tmp_path, 12, 0.2)
    process.stdout.readline()
    process.stdout.readline()  # the first batch is recorded, the second in work
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert out.splitlines()[-1] == "interrupted"
    assert process.returncode == 0
    log = RunLog.open(tmp_path)
    assert 0 < len(log.predictions()) < 12
    assert child(tmp_path, 12).wait(60) == 0
    assert sorted(entries_of(log)) == [f"e{i:03d}" for i in range(12)]


@pytest.mark.parametrize("cut", [1, 7, 200, 3000])
def test_torn_last_line_is_cut_off_and_run_again(tmp_path, cut):
    first = child(tmp_path, 12)
    assert first.wait(60) == 0, first.stderr.read()
    log = RunLog.open(tmp_path)
    path = log.shards[0]
    data = path.read_bytes()
    path.write_bytes(data[:-cut])
    assert len(RunLog.open(tmp_path).predictions()) == 11  # a reader does not stumble over it
    second = child(tmp_path, 12)
    assert second.wait(60) == 0, second.stderr.read()
    assert sorted(entries_of(log)) == [f"e{i:03d}" for i in range(12)]


def test_zeros_after_a_power_cut(tmp_path):
    log = RunLog.start(tmp_path, MANIFEST)
    with log.writer() as writer:
        writer.append(Prediction("a"))
    with open(log.shards[0], "ab") as handle:
        handle.write(b"\0" * 4096)
    with log.writer() as writer:
        writer.append(Prediction("b"))
    assert entries_of(log) == ["a", "b"]


def test_damage_in_the_middle_is_an_error_that_names_the_line(tmp_path):
    log = RunLog.start(tmp_path, MANIFEST)
    with log.writer() as writer:
        for name in "abc":
            writer.append(Prediction(name))
    lines = log.shards[0].read_text().splitlines(keepends=True)
    log.shards[0].write_text("".join([*lines[:2], lines[2][:9] + "\n", *lines[3:]]))
    with pytest.raises(RunLogError, match=r"line 3 is damaged.*rank-00000"):
        log.predictions()
    with pytest.raises(RunLogError, match="line 3"):
        log.writer()


def test_two_writers(tmp_path):
    slow = child(tmp_path, 6, 0.5)
    assert slow.stdout.readline() == "started\n"
    second = child(tmp_path, 6)
    assert second.wait(60) != 0
    assert "another process is writing this run" in second.stderr.read()
    # Nor may one process of another "world" write beside it: it would take over the other's entries.
    stranger = child(tmp_path, 6, RANK="1", WORLD_SIZE="2")
    assert stranger.wait(60) != 0
    assert "written by 1 ranks" in stranger.stderr.read()
    assert slow.wait(60) == 0
    assert len(entries_of(RunLog.open(tmp_path))) == 6


def test_ranks_share_a_run_and_a_dead_one_can_rejoin(tmp_path):
    ranks = [child(tmp_path, 20, 0.05, RANK=str(rank), WORLD_SIZE="3") for rank in range(3)]
    ranks[1].stdout.readline()
    ranks[1].kill()
    for rank in (0, 2):
        assert ranks[rank].wait(60) == 0, ranks[rank].stderr.read()
    log = RunLog.open(tmp_path)
    assert len(log.predictions()) < 20
    again = child(tmp_path, 20, RANK="1", WORLD_SIZE="3")
    assert again.wait(60) == 0, again.stderr.read()
    ids = entries_of(log)
    assert sorted(ids) == [f"e{i:03d}" for i in range(20)]
    assert len(log.shards) == 3
    # Later, with another number of ranks, there is nothing left to do.
    alone = child(tmp_path, 20)
    assert alone.wait(60) == 0
    assert len(entries_of(log)) == 20


def test_full_disk(tmp_path, monkeypatch):
    log = RunLog.start(tmp_path, MANIFEST)
    with log.writer() as writer:
        writer.append(Prediction("a"))
        before = log.shards[0].read_bytes()
        real, room = os.write, [20]

        def write(descriptor, data):
            if room[0] <= 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            done = real(descriptor, bytes(data)[: room[0]])
            room[0] -= done
            return done

        monkeypatch.setattr("evqa.runlog.os.write", write)
        with pytest.raises(RunLogError, match=r"No space left.*rank-00000"):
            writer.append(Prediction("b"))
        monkeypatch.undo()
        assert log.shards[0].read_bytes() == before  # the half record was taken back
        writer.append(Prediction("b"))
    assert entries_of(log) == ["a", "b"]


def test_changed_settings_are_refused_by_name(tmp_path):
    RunLog.start(tmp_path, {**MANIFEST, "notes": {"data_dir": "/a"}})
    assert RunLog.start(tmp_path, {**MANIFEST, "notes": {"data_dir": "/b"}}).manifest["notes"] == {"data_dir": "/a"}
    with pytest.raises(ManifestMismatchError, match=r"adapter.seed: 1 in the run, 2 now") as caught:
        RunLog.start(tmp_path, {"task": "gen", "adapter": {"name": "x", "seed": 2}})
    assert caught.value.differences == {"adapter.seed": (1, 2)}


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(RunLogError, match="no manifest"):
        RunLog.open(tmp_path)
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunLogError, match="thesis.tex"):
        RunLog.start(tmp_path, MANIFEST)
    (tmp_path / "manifest.json").write_text('{"format": 1')
    with pytest.raises(RunLogError, match="cannot be read"):
        RunLog.open(tmp_path)


def test_starting_from_many_processes_at_once(tmp_path):
    ranks = [child(tmp_path / "run", 8, RANK=str(rank), WORLD_SIZE="4") for rank in range(4)]
    for process in ranks:
        assert process.wait(60) == 0, process.stderr.read()
    assert len(RunLog.open(tmp_path / "run").predictions()) == 8


def test_success_wins_over_failure_and_later_over_earlier(tmp_path):
    log = RunLog.start(tmp_path, MANIFEST)
    with log.writer(rank=1, world_size=2) as writer:
        writer.append(Prediction("a", answer="A"))
        writer.append(Prediction.failure("b", "refused", "first"))
    with log.writer(rank=0, world_size=2) as writer:
        writer.append(Prediction.failure("a", "refused", "later"))
        writer.append(Prediction.failure("b", "refused", "second"))
    records = log.predictions()
    assert records["a"].answer == "A"
    assert records["b"].detail == "second"


def test_foreign_jsonl(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"entry_id": "a", "answer": "B"}\n{"answer": "C"}\n')
    with pytest.raises(PredictionError, match=r"without an entry_id.*p.jsonl"):
        read_records([path])
    path.write_text('{"entry_id": "a", "answer": "B", "colour": 3}\n')
    with pytest.raises(PredictionError, match=r"unknown fields \['colour'\].*'a'"):
        read_records([path])["a"]


def test_writing_where_one_may_not(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(RunLogError, match="cannot write the run"):
        RunLog.start(blocked / "run", MANIFEST)
