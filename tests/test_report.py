"""What the evidence page is made of; how it behaves is tested in test_page_browser.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from make_data import benchmark

from evqa import masks
from evqa.errors import DataError
from evqa.report import write_report
from evqa.types import Prediction


def said(rows):
    return {
        r["entry_id"]: Prediction(
            r["entry_id"], answer="B", segments=[[0.1, float("nan")]] if i == 3 else [[0.1, 0.9]], masks=r["masks"][:2],
            raw_text='</script><script>alert("x")</script>',
        ) for i, r in enumerate(rows)
    }  # fmt: skip


def load(path, call):
    text = path.read_text()
    assert text.startswith(call)
    return json.loads("[" + text[len(call) : text.rindex(")")] + "]")


def test_layout_and_data(tmp_path):
    rows = benchmark(5)
    runs = {"first": said(rows), "second": {}}
    page = write_report(runs, rows, tmp_path / "page", task="gen", bootstrap=50)
    assert page == tmp_path / "page" / "index.html"
    assert {p.name for p in (tmp_path / "page").iterdir()} == {"index.html", "assets", "data"}
    (index,) = load(tmp_path / "page" / "data" / "index.js", "evqaPage.index(")
    assert [run["name"] for run in index["runs"]] == ["first", "second"]
    assert index["runs"][0]["scores"]["strict"]["numbers"]["accuracy"] == 20.0
    assert index["runs"][1]["scores"]["strict"]["numbers"]["num_missing"] == 5
    entry = index["entries"][1]
    assert entry["runs"][0]["answer_index"] == 1
    assert entry["runs"][1]["status"] == "missing"
    name, full = load(tmp_path / "page" / entry["file"], "evqaPage.entry(")
    assert name == entry["id"] == "e001"
    assert len(full["truth"]["masks"]) == 6
    assert full["runs"][0]["masks"][1]["c"] == rows[1]["masks"][1]["rle"]["counts"].decode()
    _, broken = load(tmp_path / "page" / index["entries"][3]["file"], "evqaPage.entry(")
    assert broken["runs"][0]["segments"] == [[0.1, None]]  # NaN is no JSON
    html = page.read_text()
    for file in ("assets/evqa.css", "assets/masks.js", "assets/stage.js", "assets/page.js", "data/index.js"):
        assert file in html
        assert (tmp_path / "page" / file).is_file()
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "")  # nothing is fetched


def test_a_page_replaces_a_page_and_nothing_else(tmp_path):
    rows = benchmark(2)
    write_report({"a": said(rows)}, rows, tmp_path / "page", task="gen", bootstrap=0)
    write_report({"b": said(rows[:1])}, rows[:1], tmp_path / "page", task="gen", bootstrap=0)
    assert len(list((tmp_path / "page" / "data" / "entries").iterdir())) == 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.pdf").write_text("x")
    with pytest.raises(DataError, match="thesis.pdf"):
        write_report({"a": said(rows)}, rows, tmp_path / "other", task="gen")
    with pytest.raises(DataError, match="no run"):
        write_report({}, rows, tmp_path / "x", task="gen")


def test_clips_are_copied_once_and_unplayable_ones_are_encoded(tmp_path):
    av = pytest.importorskip("av")
    from evqa.video import write_clip

    frames = np.zeros((6, 48, 64, 3), np.uint8)
    frames[..., 0] = np.arange(6)[:, None, None] * 40
    write_clip(tmp_path / "ok.mp4", frames, 6.0)
    with av.open(str(tmp_path / "old.avi"), "w") as container:  # a codec that browsers do not know
        stream = container.add_stream("mpeg4", rate=6)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    (tmp_path / "broken.mp4").write_bytes(b"junk")
    rows = benchmark(6)
    for row, name in zip(rows, ["ok.mp4", "ok.mp4", "old.avi", "broken.mp4", "gone.mp4", None], strict=True):
        row["video"] = name and {"path": str(tmp_path / name), "bytes": None}
    rows.append({**rows[0], "entry_id": "bytes", "video": {"path": None, "bytes": (tmp_path / "ok.mp4").read_bytes()}})
    write_report({"a": said(rows)}, rows, tmp_path / "page", task="gen", bootstrap=0)
    (index,) = load(tmp_path / "page" / "data" / "index.js", "evqaPage.index(")
    clips = [entry["clip"] for entry in index["entries"]]
    assert clips[0] == clips[1]
    assert clips[3] is clips[4] is clips[5] is None
    assert (tmp_path / "page" / clips[0]).read_bytes() == (tmp_path / "ok.mp4").read_bytes()
    assert (tmp_path / "page" / clips[6]).is_file()
    with av.open(str(tmp_path / "page" / clips[2])) as container:
        assert container.streams.video[0].codec_context.name == "h264"
    assert "2 clips could not be shown" in index["footer"]


def test_protocol_that_cannot_score_is_said_not_hidden(tmp_path):
    rows = benchmark(2)
    odd = {"e000": {"parsed_response": "A"}, "e001": Prediction("e001", answer="B")}
    write_report({"a": odd}, rows, tmp_path / "page", task="gen", bootstrap=0)
    (index,) = load(tmp_path / "page" / "data" / "index.js", "evqaPage.index(")
    assert "original evaluator stops" in index["runs"][0]["scores"]["evqa-v1"]["error"]


def test_wrong_sizes_are_shown_as_they_are(tmp_path):
    rows = benchmark(1)
    small = [{"frame": 0, "time": None, "rle": masks.empty(4, 4)}, {"frame": 1, "time": None, "rle": None}]
    write_report({"a": {"e000": Prediction("e000", masks=small)}}, rows, tmp_path / "page", task="gen", bootstrap=0)
    _, full = load(tmp_path / "page" / "data" / "entries" / "00000.js", "evqaPage.entry(")
    assert full["runs"][0]["masks"] == [{"f": 0, "s": [4, 4], "c": masks.to_json(masks.empty(4, 4))["counts"]}]
    assert any("4x4" in problem for problem in full["runs"][0]["problems"])


def noisy_clip(path, seconds=3, height=720, width=960):
    from evqa.video import write_clip

    generator = np.random.default_rng(0)
    frames = generator.integers(0, 255, (6 * seconds, height, width, 3), dtype=np.uint8)
    write_clip(path, frames, 6.0)
    return {"path": str(path), "bytes": None}


def test_clips_over_the_budget_are_made_smaller_or_left_out(tmp_path):
    av = pytest.importorskip("av")
    rows = benchmark(1)
    rows[0]["video"] = noisy_clip(tmp_path / "large.mp4")
    size = (tmp_path / "large.mp4").stat().st_size
    write_report({"a": said(rows)}, rows, tmp_path / "page", task="gen", bootstrap=0, clip_budget=size - 1)
    (index,) = load(tmp_path / "page" / "data" / "index.js", "evqaPage.index(")
    small = tmp_path / "page" / index["entries"][0]["clip"]
    assert small.stat().st_size < size
    with av.open(str(small)) as container:
        assert container.streams.video[0].height == 480
        assert float(container.duration / av.time_base) == pytest.approx(3.0, abs=0.2)
    write_report({"a": said(rows)}, rows, tmp_path / "page", task="gen", bootstrap=0, clip_budget=2000)
    (index,) = load(tmp_path / "page" / "data" / "index.js", "evqaPage.index(")
    assert index["entries"][0]["clip"] is None
    assert "1 clip could not be shown" in index["footer"]
    assert "even when made smaller" in index["footer"]
    write_report({"a": said(rows)}, rows, tmp_path / "page", task="gen", bootstrap=0, clip_budget=0)
    (index,) = load(tmp_path / "page" / "data" / "index.js", "evqaPage.index(")
    assert (index["entries"][0]["clip"], index["entries"][0]["poster"]) == (None, None)
    assert not (tmp_path / "page" / "clips").exists()


def test_size_is_said_and_bounded(tmp_path):
    from PIL import Image

    from evqa.report.entries import MASK_BUDGET, TEXT_BUDGET
    from evqa.report.page import page_size

    pytest.importorskip("av")
    generator = np.random.default_rng(0)
    rows = benchmark(2)
    rows[0]["video"] = noisy_clip(tmp_path / "c.mp4", seconds=1)
    noise = [
        {"frame": t, "time": None, "rle": masks.encode(generator.random((240, 320)) > 0.5)} for t in range(20)
    ]  # the worst that a mask can be
    rows[0]["masks"] = noise
    runs = {"a": {"e000": Prediction("e000", answer="A", masks=noise, raw_text="x" * 100_000)}, "b": said(rows)}
    write_report(runs, rows, tmp_path / "page", task="gen", bootstrap=0)
    _, full = load(tmp_path / "page" / "data" / "entries" / "00000.js", "evqaPage.entry(")
    for side in (full["truth"], full["runs"][0]):
        assert 0 < sum(len(mask["c"]) for mask in side["masks"]) <= MASK_BUDGET
        assert side["every"] > 1
        assert side["hold"] == side["every"]
    assert len(full["runs"][0]["raw_text"]) < TEXT_BUDGET + 100
    assert full["runs"][1]["every"] == 1
    entry = (tmp_path / "page" / "data" / "entries" / "00000.js").stat().st_size
    assert entry < 3 * (MASK_BUDGET + TEXT_BUDGET) + 10_000
    poster = tmp_path / "page" / "posters" / "00000.jpg"
    assert max(Image.open(poster).size) == 320
    sizes = page_size(tmp_path / "page")
    assert sizes["total"] == sum(
        f.stat().st_size for f in (tmp_path / "page").rglob("*") if f.is_file() and f.name != "index.html"
    )
    (index,) = load(tmp_path / "page" / "data" / "index.js", "evqaPage.index(")
    assert f"The folder holds {sizes['total'] / 1e6:.1f} MB" in index["footer"]
    assert f"{(sizes['total'] - sizes['clips']) / 2 / 1e3:.0f} kB an entry" in index["footer"]


@pytest.mark.parametrize(("value", "want"), [
    (0.25, 0.25), (1, 1.0), (0, 0.0), (1.5, None), (-0.1, None), (True, None), ("0.5", None), (None, None), (float("nan"), None),
])  # fmt: skip
def test_confidence_is_a_number_from_0_to_1_or_none(value, want):
    from evqa.report.entries import confidence_of

    assert confidence_of(Prediction("a", answer="A", usage={"confidence": value})) == want
    assert confidence_of(Prediction.failure("a", "refused", "", usage={"confidence": value})) is None


def test_filters_get_every_digit_of_what_has_a_threshold(tmp_path):
    rows = benchmark(3)
    write_report({"a": said(rows)}, rows, tmp_path / "page", task="gen", bootstrap=0)
    (index,) = load(tmp_path / "page" / "data" / "index.js", "evqaPage.index(")
    from evqa.scoring import score

    for entry in score(said(rows), rows, bootstrap=0).entries:
        light = next(e for e in index["entries"] if e["id"] == entry.entry_id)["runs"][0]["v"]
        assert {name: light[name] for name in ("accuracy", "mIoU", "J&F")} == {
            name: entry.values[name] for name in ("accuracy", "mIoU", "J&F")
        }


WRITER = """
import sys
from make_data import benchmark
from evqa.report import write_report
from evqa.types import Prediction
rows = benchmark(60)
said = {r["entry_id"]: Prediction(r["entry_id"], answer="A") for r in rows}
print("ready", flush=True)
write_report({"a": said}, rows, sys.argv[1], task="gen", bootstrap=0)
"""


def test_page_that_was_killed_is_no_page_and_is_replaced(tmp_path):
    folder = tmp_path / "page"
    rows = benchmark(1)
    write_report({"a": said(rows)}, rows, folder, task="gen", bootstrap=0)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    child = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, env=environment)
    assert child.stdout.readline() == b"ready\n"
    while child.poll() is None and not (folder / "data" / "entries" / "00010.js").exists():
        time.sleep(0.001)
    child.kill()
    child.wait()
    whole = (folder / "index.html").exists()
    assert whole == (folder / "data" / "index.js").exists()  # killed in the middle, or it was faster than the kill
    (folder / ".index.html.abc123").write_text("torn")  # what a kill in the last moment leaves
    write_report({"a": said(rows)}, rows, folder, task="gen", bootstrap=0)
    assert {path.name for path in folder.iterdir()} == {"index.html", "assets", "data"}
    assert len(list((folder / "data" / "entries").iterdir())) == 1


def test_two_writers_do_not_mix(tmp_path):
    from filelock import FileLock

    rows = benchmark(1)
    (tmp_path / "page").mkdir()
    with FileLock(tmp_path / "page" / ".lock"), pytest.raises(DataError, match="another process is writing"):
        write_report({"a": said(rows)}, rows, tmp_path / "page", task="gen", bootstrap=0)
    assert not (tmp_path / "page" / "index.html").exists()
    write_report({"a": said(rows)}, rows, tmp_path / "page", task="gen", bootstrap=0)
