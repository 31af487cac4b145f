"""What the evidence page is made of; how it behaves is tested in test_page_browser.py."""

from __future__ import annotations

import json

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
