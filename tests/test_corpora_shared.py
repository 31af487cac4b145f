"""Every corpus from material with real frames and masks, in the published layouts."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

import evqa
from evqa.corpora.base import builder_class
from evqa.corpora.checks import validate
from evqa.corpora.reading import read_clip
from evqa.report.picture import draw_row

pytestmark = pytest.mark.usefixtures("own_cache")


ROWS = {
    "revos": {"train": 4, "valid": 5},
    "mevis": {"train": 3, "valid_u": 3, "valid": 3},
    "lv_vis": {"train": 1},
    "ref_youtube_vos": {"train": 2, "valid": 2},
    "ref_davis17": {"train": 4, "valid": 4},
    "ref_sav": {"train": 1},
    "groundmore": {"train": 3, "test": 3},
    "vicas": {"train": 3, "val": 3, "test": 3},
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_with_pixels(shared, tmp_path, name):
    if name == "ref_sav":
        pytest.importorskip("av")
    splits = evqa.load_dataset(name, data_dir=str(shared / "data" / "corpora" / "data"))
    assert {split: len(rows) for split, rows in splits.items()} == ROWS[name]
    for rows in splits.values():
        assert validate(rows) == []
    # What is listed can be handed to other processes, and read there.
    builder = builder_class(name)(data_dir=str(shared / "data" / "corpora" / "data"))
    root = shared / "data" / "corpora" / "data"
    listed = pickle.loads(pickle.dumps(builder.list_rows(root, builder.annotation_files(root))))
    again = [builder.read_row(row)[0] for item in listed["train"] for row in builder.expand(item)]
    assert again == splits["train"]["entry_id"][:]
    row = splits["train"][-1]
    clip = read_clip(row, [0, row["num_frames"] - 1], (96, 170))
    assert clip.frames.std() > 20
    assert clip.masks.any(axis=(2, 3))[:, 0].all()
    draw_row(row, tmp_path / "x.png", frames=2)
    assert np.asarray(Image.open(tmp_path / "x.png")).std() > 20


def test_masks_are_those_of_the_files(shared):
    """Decoded once more from the published files, by other means."""
    home = shared / "data" / "corpora" / "data"
    masks = json.loads((home / "mevis" / "train" / "mask_dict.json").read_text())
    for row in evqa.load_dataset("mevis", data_dir=str(home), split="train"):
        ids = json.loads(row["metadata"])["anno_id"]
        for number, item in zip(ids, row["objects"], strict=True):
            theirs = [coco.decode(mask) for mask in masks[str(number)]]
            assert all((coco.decode(m["rle"]) == t).all() for m, t in zip(item["masks"], theirs, strict=True))
    with open(home / "ref_davis17" / "valid" / "mask_dict.pkl", "rb") as handle:
        numbered = pickle.load(handle)  # our own material
    for place, row in enumerate(evqa.load_dataset("ref_davis17", data_dir=str(home), split="valid")):
        ours = [mask["rle"]["counts"] for mask in row["objects"][0]["masks"]]
        assert ours == [mask["counts"] for mask in numbered[str(place)]]
    # GroundMoRe: the label maps themselves
    row = evqa.load_dataset("groundmore", data_dir=str(home), split="test")[2]
    folder = home / "groundmore" / "annotations" / row["video_id"] / "masks"
    for item in row["objects"]:
        for mask in item["masks"]:
            stem = row["frames"]["names"][mask["frame"]].removesuffix(".jpg")
            labels = np.asarray(Image.open(folder / f"{stem}.png"))
            assert (coco.decode(mask["rle"]) == (labels == int(item["object_id"]))).all()


def test_vicas_as_its_authors_publish_it(shared, tmp_path):
    home = shared / "data" / "corpora" / "data" / "vicas"
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "v1.0").symlink_to(home / "annotations_official_form" / "v1.0")
    for name in ("splits", "video_frames"):
        (tmp_path / name).symlink_to(home / name)
    theirs = evqa.load_dataset("vicas", data_dir=str(tmp_path), split="val")
    ours = evqa.load_dataset("vicas", data_dir=str(home), split="val")
    assert [row["objects"] for row in theirs] == [row["objects"] for row in ours]


def test_the_real_expressions_of_ref_youtube_vos_valid(shared, tmp_path, caplog):
    home = shared / "data" / "ref_youtube_vos"
    rows = evqa.load_dataset("ref_youtube_vos", data_dir=str(home), split="valid")
    published = json.loads((home / "meta_expressions" / "valid" / "meta_expressions.json").read_text())["videos"]
    assert len(rows) == sum(len(video["expressions"]) for video in published.values())
    assert "cannot be told apart" in caplog.text
    assert all(row["objects"] is None for row in rows)
    # steps differ within and between clips, and not all begin at 0
    assert len({row["frames"]["names"][0] for row in rows}) > 5
    row = rows[-1]
    assert row["frames"]["names"] == [f"{name}.jpg" for name in published[row["video_id"]]["frames"]]


def test_conversations(shared, tmp_path):
    data = shared / "data"
    rows = evqa.load_dataset(
        "llava_instruct", data_dir=str(data / "llava_instruct"), files="llava_style_sample.json", split="train"
    )
    assert len(rows) == 15
    assert {row["images"] is None for row in rows} == {True}  # COCO is not among the material
    options = {"files": "video_style_sample.json", "media_dir": str(data / "videos")}
    rows = evqa.load_dataset("videogpt_plus", data_dir=str(data / "videogpt_plus"), split="train", **options)
    assert [row["videos"][0]["path"] for row in rows] == [
        str(data / "videos" / f"llamafactory_{number}.mp4") for number in (1, 3)
    ]
    assert validate(rows) == []
    pytest.importorskip("av")
    draw_row(rows[0], tmp_path / "x.html", frames=2)
    page = (tmp_path / "x.html").read_text()
    assert page.count("<figure>") == 2
    assert "Why is this video funny?" in page
