"""LLaVA-Instruct-665k, VideoGPT+ and the file that merges them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import datasets
import pytest
from corpus_data import write_frames, write_json

import evqa
from evqa.corpora import conversation
from evqa.corpora.checks import validate
from evqa.errors import DataError, MissingDataError
from evqa.types import features

pytestmark = pytest.mark.usefixtures("own_cache")


def load(name, root, **options):
    return evqa.load_dataset(name, data_dir=str(root), split="train", **options)


def record(question="<image>\nWhat is it?", answer="A cat.", **more):
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": "000000033471", "conversations": turns, **more}


IMAGE = "coco/train2017/000000033471.jpg"


def write_llava(root, *records):
    write_json(root / "llava_v1_5_mix665k.json", list(records))
    write_frames(root / "coco" / "train2017", ["000000033471.jpg"])
    return root


def test_images_text_ids_and_markers(tmp_path):
    at_the_end = record("What is it?\n<image>", image=IMAGE)
    text = {**record("Write <image> in HTML", "<img>"), "id": 33471, "model": "x"}
    write_llava(tmp_path, record(image=IMAGE), at_the_end, text, record("No marker", image=IMAGE))
    rows = load("llava_instruct", tmp_path)
    assert rows.features == features("conversation")
    assert rows["entry_id"][:] == [f"llava_v1_5_mix665k/{number}" for number in range(4)]
    assert rows["source_id"][:] == ["000000033471", "000000033471", "33471", "000000033471"]
    assert rows[0]["messages"] == [
        {"role": "user", "content": "<image>\nWhat is it?"}, {"role": "assistant", "content": "A cat."},
    ]  # fmt: skip
    assert rows[1]["messages"][0]["content"] == "What is it?\n<image>"
    assert rows[0]["images"] == [{"bytes": None, "path": str(tmp_path / IMAGE)}]
    assert rows[0]["image_names"] == [IMAGE]
    assert (rows[2]["image_names"], rows[2]["images"], rows[2]["videos"]) == ([], [], [])
    assert rows[2]["messages"][0]["content"] == "Write <image> in HTML"  # text, not a marker
    assert json.loads(rows[2]["metadata"]) == {"file": "llava_v1_5_mix665k.json", "model": "x"}
    assert rows[3]["messages"][0]["content"] == "No marker"
    assert validate(rows) == []


def test_images_of_a_folder_that_is_not_here_are_none_and_one_missing_file_is_named(tmp_path, caplog):
    write_llava(tmp_path, record(image=IMAGE), record(image="gqa/images/1.jpg"), record(image="gqa/images/2.jpg"))
    with caplog.at_level(logging.WARNING):
        rows = load("llava_instruct", tmp_path)
    assert [row["images"] is None for row in rows] == [False, True, True]
    assert rows[1]["image_names"] == ["gqa/images/1.jpg"]
    assert caplog.text.count("images of llava_v1_5_mix665k.json in 'gqa' are not here") == 1
    write_frames(tmp_path / "gqa" / "images", ["1.jpg"])
    with pytest.raises(MissingDataError, match=r"the image 'gqa/images/2.jpg' is not in any of") as error:
        load("llava_instruct", tmp_path)
    assert error.value.entry == "llava_v1_5_mix665k/2"
    assert error.value.file == str(tmp_path / "llava_v1_5_mix665k.json")
    rows = load("llava_instruct", tmp_path, on_error="skip")
    assert rows["entry_id"][:] == ["llava_v1_5_mix665k/0", "llava_v1_5_mix665k/1"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (3, "a record is a int"),
        (record(image=IMAGE, video="a.mp4"), "both an image and a video"),
        (record(image=3), "image must be a path"),
        (record(image=""), "image must be a path"),
        (record(image="../../etc/passwd"), "is not a path inside the data"),
        (record(image="/etc/passwd"), "is not a path inside the data"),
        (record("<image> or <image>", image=IMAGE), "2 markers for 1 images"),
        ({"id": 1, "image": IMAGE}, "conversations must be a list of turns"),
        ({"id": 1, "conversations": []}, "conversations must be a list of turns"),
        ({"id": 1, "conversations": [{"from": "dog", "value": "x"}]}, "turn 0 must have a from"),
        ({"id": 1, "conversations": [{"from": "gpt", "value": None}]}, "turn 0 must have a from"),
        ({"id": 1, "conversations": ["x"]}, "turn 0 must have a from"),
        (record("x", duration="long"), "duration must be a number"),
    ],
)
def test_malformed_records_are_named(tmp_path, bad, message):
    write_llava(tmp_path, record(image=IMAGE), bad)
    with pytest.raises(DataError) as error:
        load("llava_instruct", tmp_path)
    assert message in str(error.value)
    assert str(error.value).startswith("llava_instruct: ")
    assert error.value.entry == "llava_v1_5_mix665k/1"
    assert error.value.file == str(tmp_path / "llava_v1_5_mix665k.json")


@pytest.mark.parametrize("text", ["", "{}", "[", '[{"id": 1', '[{"id": 1}', '[{"id": 1,]', "[1, 2, ]"])
def test_a_file_that_is_cut_off(tmp_path, text):
    write_llava(tmp_path)
    (tmp_path / "llava_v1_5_mix665k.json").write_text(text)
    with pytest.raises(DataError) as error:
        load("llava_instruct", tmp_path)
    assert error.value.file == str(tmp_path / "llava_v1_5_mix665k.json")


def test_more_records_than_are_listed_together(tmp_path, monkeypatch):
    monkeypatch.setattr(conversation, "_GROUP", 3)
    write_llava(tmp_path, *(record(image=IMAGE, answer=f"number {number}") for number in range(10)))
    rows = load("llava_instruct", tmp_path)
    assert [row["messages"][1]["content"] for row in rows] == [f"number {number}" for number in range(10)]
    assert rows["entry_id"][-1] == "llava_v1_5_mix665k/9"
    assert list(load("llava_instruct", tmp_path, streaming=True)) == list(rows)


def test_videogpt_plus_each_file_has_its_own_folder_of_videos(tmp_path):
    one = record("Why?\n<video>", video="v_1.mp4")
    other = record("<image>\nWhich class?", video="clip/2.webm")  # its marker says image, and means the video
    write_json(tmp_path / "annotations" / "vcg-plus_112K.json", [one])
    write_json(tmp_path / "annotations" / "classification_k710.json", [other])
    for path in ("Activity_Videos/v_1.mp4", "k710/clip/2.webm"):
        (tmp_path / "instruction_tuning" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "instruction_tuning" / path).write_bytes(b"video")
    rows = load("videogpt_plus", tmp_path)
    assert rows["entry_id"][:] == ["vcg-plus_112K/0", "classification_k710/0"]
    assert [row["videos"][0]["path"] for row in rows] == [
        str(tmp_path / "instruction_tuning" / "Activity_Videos" / "v_1.mp4"),
        str(tmp_path / "instruction_tuning" / "k710" / "clip" / "2.webm"),
    ]
    assert rows[0]["messages"][0]["content"] == "Why?\n<video>"
    assert rows[1]["messages"][0]["content"] == "<video>\nWhich class?"
    assert len(load("videogpt_plus", tmp_path, files="vcg-plus_112K.json")) == 1
    with pytest.raises(MissingDataError, match="no such annotation file"):
        load("videogpt_plus", tmp_path, files="vcg-plus_112K.json, nothing.json")
    (tmp_path / "instruction_tuning" / "Activity_Videos" / "v_1.mp4").rename(tmp_path / "v_2.mp4")
    with pytest.raises(MissingDataError, match=r"the video 'v_1.mp4' is not in any of"):
        load("videogpt_plus", tmp_path)


def test_the_merged_file_of_unipixel(tmp_path):
    write_llava(tmp_path / "llava_instruct")
    (tmp_path / "videogpt_plus" / "a").mkdir(parents=True)
    (tmp_path / "videogpt_plus" / "a" / "b.mp4").write_bytes(b"video")
    listed = [record(image=IMAGE), record("<video>\nx", video="a/b.mp4", duration=12), record("only text")]
    file = write_json(tmp_path / "general" / "llava_v1_5_mix665k_with_videogpt_plus_576k.json", listed)
    rows = load("llava_videogpt_plus", tmp_path)
    for name in (file.stem, f"evqa/{file.stem}"):  # the name by which the file is known
        assert load(name, tmp_path)[:] == rows[:]
    by_hook = datasets.load_dataset(f"evqa/{file.stem}", data_dir=str(tmp_path), split="train")
    assert by_hook["entry_id"][:] == rows["entry_id"][:]
    assert [bool(row["images"]) for row in rows] == [True, False, False]
    assert [bool(row["videos"]) for row in rows] == [False, True, False]
    assert rows["duration"][:] == [None, 12.0, None]
    assert rows["entry_id"][0] == f"{file.stem}/0"
    with pytest.raises(MissingDataError, match="media_dir is not a folder"):
        load("llava_videogpt_plus", tmp_path, media_dir=str(tmp_path / "nowhere"))


def test_layouts_that_are_none(tmp_path):
    for name in ("llava_instruct", "videogpt_plus", "llava_videogpt_plus"):
        with pytest.raises(MissingDataError, match=f"{name}: no annotation files found; looked for "):
            load(name, tmp_path)


def test_what_is_readable_and_wrong(tmp_path):
    twice = {"id": 1, "conversations": [{"from": "human", "value": "a"}, {"from": "human", "value": " "}]}
    write_llava(tmp_path, twice, {"id": 2, "conversations": [{"from": "human", "value": "a"}]}, record("x", duration=0))
    assert validate(load("llava_instruct", tmp_path)) == [
        "llava_v1_5_mix665k/0: turns are not user and assistant by turns: user, user",
        "llava_v1_5_mix665k/0: turn 1 is empty",
        "llava_v1_5_mix665k/1: the last turn is the user's: there is nothing to learn from it",
        "llava_v1_5_mix665k/2: a duration of 0.0 s",
    ]
    write_llava(tmp_path, record(image=IMAGE))
    rows = load("llava_instruct", tmp_path)
    Path(rows[0]["images"][0]["path"]).unlink()
    assert validate(rows) == [f"llava_v1_5_mix665k/0: {tmp_path / IMAGE} is gone"]
