"""Prediction files of every known form, and the way back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from make_data import benchmark, box
from PIL import Image

from evqa import masks
from evqa.errors import PredictionError
from evqa.export import export_original
from evqa.predictions import load_predictions, read_mask_folder, read_prediction
from evqa.scoring import score
from evqa.types import Prediction


def write(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_original_generation_file(tmp_path):
    path = write(
        tmp_path / "p.json",
        {
            "a": {
                "video_id": "v",
                "parsed_response": {"answer": "B", "segments": [[0, 1]], "referring_expressions": ["x", " ", 3]},
            },
            "b": {"video_id": "v", "parsed_response": None, "error": "timeout"},
            "c": {"video_id": "v", "parsed_response": None, "parse_error": True},
            "d": {"parsed_response": {"answer": ["B"], "segments": [[5, 1], {"start": 0, "end": 2}]}},
        },
    )
    got = load_predictions(path)
    assert list(got) == ["a", "b", "c", "d"]
    assert (got["a"].answer, got["a"].segments, got["a"].referring_expressions) == ("B", [[0, 1]], ["x"])
    assert (got["b"].status, got["b"].detail) == ("adapter_error", "timeout")
    assert got["c"].status == "parse_failed"
    assert (got["d"].answer, got["d"].segments) == (None, [[0, 2]])
    assert "ends before it starts" in got["d"].detail
    assert got["d"].original["entry"]["parsed_response"]["answer"] == ["B"]  # evqa-v1 wants it as it stood


def test_mcq_file():
    value = {
        "answer": "A",
        "gt_answer": "A",
        "evidence_t": "b",
        "gt_evidence_t": "B",
        "evidence_s": None,
        "gt_evidence_s": "C",
    }
    got = read_prediction("e", value)
    assert (got.answer, got.temporal_choice, got.spatial_choice) == ("A", "b", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cut off"), ('{"a": {"parsed_response": ', "cut off"), ("[1, 2]", "this is a list"), ('"x"', "this is a str"),
        ('{"a": {"answer": "A"}, "a": {"answer": "B"}}', "'a' stands twice"), ("[" * 100000, "not readable as JSON"),
    ],
)  # fmt: skip
def test_broken_files(tmp_path, text, message):
    with pytest.raises(PredictionError, match=rf"{message}.*p\.json"):
        load_predictions(write(tmp_path / "p.json", text))


@pytest.mark.parametrize("value", [3, "A", ["A"], {"foo": 1}, {}, {"entry_id": "other", "answer": "A"}])
def test_unknown_forms_name_entry_and_file(tmp_path, value):
    with pytest.raises(PredictionError, match=r"'a'.*p\.json"):
        load_predictions(write(tmp_path / "p.json", {"a": value}))["a"]


def test_missing_files(tmp_path):
    with pytest.raises(PredictionError, match="no such prediction file"):
        load_predictions(tmp_path / "nothing.json")
    with pytest.raises(PredictionError, match="no such mask folder"):
        load_predictions(write(tmp_path / "p.json", {}), masks=tmp_path / "none")


def mask_folder(folder, names, mode="L"):
    folder.mkdir(parents=True)
    for name in names:
        Image.fromarray(box(4, 4).astype(np.uint8) * 255).convert(mode).save(folder / name)
    return folder


def test_mask_folders_wherever_they_are_named(tmp_path):
    mask_folder(tmp_path / "m" / "a" / "masks", ["00000.png", "00003.png"])
    mask_folder(tmp_path / "m" / "b", ["00001.png"])
    mask_folder(tmp_path / "own" / "c", ["00002.png"])
    entries = {name: {"parsed_response": {"answer": "A"}} for name in "ab"}
    entries["c"] = {"answer": "A", "mask_dir": "own/c"}
    entries["d"] = {"parsed_response": {"answer": "A", "mask_path": "own/c"}}
    entries["e"] = {"answer": "A", "mask_dir": "nowhere"}
    path = write(tmp_path / "p.json", entries)
    plain = load_predictions(path)
    assert [m["frame"] for m in plain["c"].masks] == [m["frame"] for m in plain["d"].masks] == [2]
    assert "nowhere does not exist" in plain["e"].detail
    assert plain["a"].masks == []
    given = load_predictions(path, masks=tmp_path / "m")
    assert [m["frame"] for m in given["a"].masks] == [0, 3]
    assert [m["frame"] for m in given["b"].masks] == [1]
    assert given["c"].masks == []  # the given folder wins


def test_stray_and_broken_masks(tmp_path):
    folder = mask_folder(tmp_path / "x", ["00000.png", "7.png", "overlay.png"])
    (folder / "00009.png").write_bytes(b"junk")
    (folder / "notes.txt").write_text("x")
    got, problems = read_mask_folder(folder)
    assert {m["frame"]: m["rle"] is not None for m in got} == {0: True, 7: True, -1: True, 9: False}
    assert len(problems) == 2
    exact, _ = read_mask_folder(folder, exact_names=True)
    assert sorted(m["frame"] for m in exact) == [-2, -1, 0, 9]  # the original pairs by name: 7.png is no frame


def test_export_is_read_back_with_the_same_scores(tmp_path):
    rows = benchmark(6)
    said = {
        r["entry_id"]: Prediction(r["entry_id"], answer="B", segments=[[0.1, 1.2]], masks=r["masks"][1:]) for r in rows
    }
    said["e005"] = Prediction.failure("e005", "refused", "no")
    path = export_original(said, tmp_path / "out", references=rows)
    again = load_predictions(path)
    for protocol in ("strict", "evqa-v1"):
        assert score(again, rows, protocol).metrics() == score(said, rows, protocol).metrics()
    entry = json.loads(path.read_text())["e000"]
    assert entry["video_id"] == "v0"
    assert (tmp_path / "out" / "predictions" / "e000" / "masks" / "00002.png").exists()
    explicit = load_predictions(path, masks=tmp_path / "out" / "predictions", exact=True)
    assert score(explicit, rows, "evqa-v1").metrics() == score(said, rows, "evqa-v1").metrics()


def test_mcq_export(tmp_path):
    rows = benchmark(3)
    said = {r["entry_id"]: Prediction(r["entry_id"], answer="A", temporal_choice="B", spatial_choice="D") for r in rows}
    path = export_original(said, tmp_path, references=rows, task="mcq")
    assert json.loads(path.read_text())["e001"] == {
        "answer": "A", "gt_answer": "B", "evidence_t": "B", "gt_evidence_t": "B", "evidence_s": "D", "gt_evidence_s": "B",
    }  # fmt: skip
    assert score(load_predictions(path), rows, "evqa-v1").metrics() == score(said, rows, "evqa-v1").metrics()
    with pytest.raises(PredictionError, match="references are needed"):
        export_original(said, tmp_path, task="mcq")


def test_export_stays_in_its_folder(tmp_path):
    rle = masks.encode(box(1, 1))
    for name in ("../escape", "/tmp/escape", "a/../../escape"):
        evil = {name: Prediction(name, masks=[{"frame": 0, "time": None, "rle": rle}])}
        with pytest.raises(Exception, match="leaves its folder"):
            export_original(evil, tmp_path / "out")


def test_a_prediction_needs_an_id_and_a_known_status():
    with pytest.raises(PredictionError):
        Prediction("")
    with pytest.raises(PredictionError, match="known: ok"):
        Prediction("a", status="fine")
