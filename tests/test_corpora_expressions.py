"""MeViS, ReVOS and LV-VIS: expressions in one file, masks by annotation in another."""

from __future__ import annotations

import json
import logging
import os
import shutil

import numpy as np
import pytest
from corpus_data import (
    FRAMES,
    HEIGHT,
    WIDTH,
    decoded,
    expression,
    load,
    masklet,
    palette_png,
    rle,
    shape,
    videos,
    write_frames,
    write_json,
    write_many,
    write_mevis,
)
from PIL import Image
from pycocotools import mask as coco

import evqa
from evqa.corpora.checks import compare_with_official, validate
from evqa.corpora.reading import read_frames, read_masks
from evqa.errors import DataError, EvqaError, MaskError, MissingDataError
from evqa.types import features

pytestmark = pytest.mark.usefixtures("own_cache")


def one_video(home, masks, expressions=None, frames=FRAMES, **record):
    """``mevis/train`` with one video."""
    listed = videos(aa=(frames, expressions or {"0": expression("it moves", 0)}))
    listed["videos"]["aa"].update(record)
    write_json(home / "mevis" / "train" / "meta_expressions.json", listed)
    write_json(home / "mevis" / "train" / "mask_dict.json", masks)
    write_frames(home / "mevis" / "train" / "JPEGImages" / "aa", [f"{name}.jpg" for name in frames])
    return home


# ---------------------------------------------------------------------------------------------- MeViS
@pytest.mark.parametrize("where", ["", "mevis"])
def test_rows_are_typed_and_objects_stay_apart(tmp_path, where):
    home = write_mevis(tmp_path)
    rows = load("mevis", tmp_path / where)
    assert rows.features == features("segmentation")
    assert rows["entry_id"][:] == ["aa/0", "aa/1", "bb/0"]
    row = rows[1]
    assert (row["corpus"], row["video_id"], row["expression_id"], row["kind"]) == ("mevis", "aa", "1", "query")
    assert (row["expression"], row["answer"]) == ("both cats", None)
    assert (row["num_frames"], row["height"], row["width"]) == (3, HEIGHT, WIDTH)
    folder = str(home / "train" / "JPEGImages" / "aa")
    assert row["frames"] == {"folder": folder, "names": [f"{name}.jpg" for name in FRAMES], "times": None}
    assert [item["object_id"] for item in row["objects"]] == ["0", "1"]
    for number, item in enumerate(row["objects"]):
        found = decoded(item)
        assert sorted(found) == [0, 1, 2]
        assert all((mask == shape(number)).all() for mask in found.values())
    assert json.loads(row["metadata"]) == {"obj_id": [0, 1], "anno_id": [0, 1], "vid_id": 0}


def test_a_split_without_masks_has_no_objects_rather_than_black_ones(tmp_path):
    write_mevis(tmp_path)
    for row in load("mevis", tmp_path, "valid"):
        assert row["objects"] is None
        assert read_masks(row, [0]) == (None, None)
    assert set(evqa.load_dataset("mevis", data_dir=str(tmp_path))) == {"train", "valid_u", "valid"}


def test_by_name_through_datasets_and_streaming_and_processes(tmp_path):
    from datasets import load_dataset

    write_mevis(tmp_path)
    rows = load_dataset("evqa/mevis", data_dir=str(tmp_path), split="valid_u")
    assert len(rows) == 3
    assert list(load("mevis", tmp_path, "valid_u", streaming=True)) == list(rows)


def test_several_processes_make_the_same_rows(tmp_path, caplog):
    write_many(tmp_path)  # enough for three blocks
    masks = json.loads((tmp_path / "mevis" / "train" / "mask_dict.json").read_text())
    write_json(tmp_path / "mevis" / "train" / "mask_dict.json", {**masks, "4": [7]})
    options = {"on_error": "skip", "num_proc": 2}
    rows = load("mevis", tmp_path, **options)
    assert len(rows) == 120
    assert "30 rows could not be read and were skipped" in caplog.text
    assert list(rows) == list(load("mevis", tmp_path, on_error="skip", cache_dir=str(tmp_path / "other")))
    with pytest.raises(MaskError) as error:  # entry and file come back from the process
        load("mevis", tmp_path, num_proc=2)
    assert error.value.entry == "aa/4"
    assert error.value.file == str(tmp_path / "mevis" / "train" / "mask_dict.json")


def test_an_expression_of_nothing_has_an_empty_list(tmp_path):
    nothing = {"0": expression("the cat that flies")}
    assert load("mevis", one_video(tmp_path, {}, nothing))[0]["objects"] == []


POLYGON = [2, 1, 6, 1, 6, 4, 2, 4]
FORMS = {
    "text": rle(shape(0)),
    "list": rle(shape(0), list),
    "parts": [rle(shape(0)), None, rle(shape(1))],
    "polygons": [POLYGON, [10, 5, 14, 5, 14, 9, 10, 9]],
    "null": None,
    "nothing": [],
    "empty": rle(np.zeros((HEIGHT, WIDTH))),
}


def test_every_published_form_of_a_mask(tmp_path):
    frames = [f"{number:05d}" for number in range(len(FORMS))]
    row = load("mevis", one_video(tmp_path, {"0": list(FORMS.values())}, frames=frames))[0]
    found = dict(zip(FORMS, decoded(row["objects"][0]).values(), strict=True))
    assert (found["text"] == shape(0)).all()
    assert (found["list"] == shape(0)).all()
    assert (found["parts"] == (shape(0) | shape(1))).all()
    polygons = coco.merge(coco.frPyObjects(FORMS["polygons"], HEIGHT, WIDTH))
    assert (found["polygons"] == coco.decode(polygons)).all()
    assert found["polygons"].any()
    # annotated, and not there: null and an RLE without foreground say the same
    for name in ("null", "nothing", "empty"):
        assert found[name].shape == (HEIGHT, WIDTH)
        assert not found[name].any()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"size": [HEIGHT, WIDTH], "counts": "0"}, "0 pixels where the size says 240"),
        ({"size": [HEIGHT, WIDTH]}, "not a COCO RLE"),
        (7, "neither an RLE nor polygons"),
        ([[1, 2, 3]], "at least three points"),
        ([rle(shape(0)), rle(shape(0, 8, 8))], "different sizes"),
    ],
)
def test_a_malformed_mask_is_named(tmp_path, mask, message):
    home = one_video(tmp_path, {"0": [rle(shape(0)), mask, None]})
    with pytest.raises(MaskError) as error:
        load("mevis", home)
    assert message in str(error.value)
    assert "mevis: the mask of frame 1 under '0'" in str(error.value)
    assert error.value.entry == "aa/0"
    assert error.value.file == str(home / "mevis" / "train" / "mask_dict.json")


def test_masks_of_one_object_in_two_sizes(tmp_path):
    home = one_video(tmp_path, {"0": [rle(shape(0)), rle(shape(0, 24, 40)), None]})
    with pytest.raises(MaskError, match="masks of one object differ in size"):
        load("mevis", home)


@pytest.mark.parametrize(
    ("masks", "expressions", "message"),
    [
        ({"0": masklet(0, 2)}, None, "2 masks under '0' for a video of 3 frames"),
        ({"1": masklet(0, 3)}, None, "has no masks for annotation 0"),
        ({"0": {"masks": []}}, None, "are a dict, not a list"),
        ({}, {"0": {"exp": "x", "obj_id": [1], "anno_id": []}}, "must be lists of one length"),
        ({}, {"0": {"exp": "x"}}, "must be lists of one length"),
        ({}, {"0": {"exp": 3, "obj_id": [], "anno_id": []}}, "the expression must be text, got 3"),
        ({}, {"0": {"exp": " ", "obj_id": [], "anno_id": []}}, "the expression must be text"),
        ({}, {"0": "x"}, "the expression is a str"),
    ],
)
def test_contradictory_files_are_named(tmp_path, masks, expressions, message):
    home = one_video(tmp_path, masks, expressions)
    with pytest.raises(DataError) as error:
        load("mevis", home)
    assert str(error.value).startswith("mevis: ")
    assert message in str(error.value)
    assert error.value.entry == "aa/0"
    assert error.value.file.startswith(str(home / "mevis" / "train"))


def test_rows_that_cannot_be_read_are_left_out_counted_and_listed(tmp_path, caplog):
    more = {"0": expression("one", 0), "1": expression("two", 9), "2": expression("three", 0)}
    home = one_video(tmp_path, {"0": masklet(0, 3)}, more)
    rows = load("mevis", home, on_error="skip")
    assert rows["entry_id"][:] == ["aa/0", "aa/2"]
    assert "1 rows could not be read and were skipped: aa/1" in caplog.text


@pytest.mark.parametrize("name", ["meta_expressions.json", "mask_dict.json"])
@pytest.mark.parametrize("keep", [0, 1, 0.5, 0.99])
def test_a_file_that_is_cut_off(tmp_path, name, keep):
    home = write_mevis(tmp_path)
    file = home / "train" / name
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * keep) if keep < 1 else 1])
    with pytest.raises(DataError, match="not readable as JSON") as error:
        load("mevis", tmp_path)
    assert error.value.file == str(file)


def test_a_key_that_stands_twice(tmp_path):
    home = write_mevis(tmp_path)
    masks = (home / "train" / "mask_dict.json").read_text()
    (home / "train" / "mask_dict.json").write_text(masks[:-1] + ', "1": []}')
    with pytest.raises(DataError, match="the key '1' stands twice"):
        load("mevis", tmp_path)


def test_missing_masks_and_missing_frames_are_said(tmp_path, caplog):
    home = write_mevis(tmp_path)
    (home / "train" / "mask_dict.json").unlink()
    shutil.rmtree(home / "train" / "JPEGImages")
    with caplog.at_level(logging.WARNING):
        row = load("mevis", tmp_path)[0]
    assert "has no mask_dict.json" in caplog.text
    assert "mevis train comes without frames" in caplog.text
    assert row["objects"] == [{"object_id": "0", "masks": None}]
    assert row["frames"]["folder"] is None
    assert row["frames"]["names"] == [f"{name}.jpg" for name in FRAMES]


def test_one_missing_frame_is_named(tmp_path):
    home = write_mevis(tmp_path)
    folder = home / "train" / "JPEGImages"
    (folder / "aa" / "00005.jpg").unlink()
    with pytest.raises(MissingDataError, match=r"1 of 3 frames are missing, 00005.jpg first") as error:
        load("mevis", tmp_path)
    assert error.value.file == str(folder / "aa")
    shutil.rmtree(folder / "aa")
    with pytest.raises(MissingDataError, match="the folder of the video's frames is missing or empty"):
        load("mevis", tmp_path)
    (folder / "aa").mkdir()
    for name in FRAMES:
        (folder / "aa" / f"{name}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="not a readable image"):
        load("mevis", tmp_path)


@pytest.mark.parametrize("video", ["../aa", "/etc", ".."])
def test_ids_cannot_lead_out_of_the_data(tmp_path, video):
    home = write_mevis(tmp_path)
    file = home / "train" / "meta_expressions.json"
    listed = json.loads(file.read_text())
    listed["videos"][video] = listed["videos"].pop("bb")
    write_json(file, listed)
    with pytest.raises(DataError, match="leaves its folder"):
        load("mevis", tmp_path)


def test_frames_out_of_order_or_named_as_paths(tmp_path):
    home = one_video(tmp_path, {"0": masklet(0, 3)})
    file = home / "mevis" / "train" / "meta_expressions.json"
    listed = json.loads(file.read_text())
    for frames, message in [
        (["00005", "00000", "00010"], "not in order"),
        (["00000", "00000", "00010"], "listed twice"),
        (["../x", "00000", "00010"], "no file name"),
        ([], "the video has no frames"),
        (None, "no list of frames"),
    ]:
        listed["videos"]["aa"]["frames"] = frames
        write_json(file, listed)
        with pytest.raises(DataError, match=message):
            load("mevis", home)


def test_masks_of_another_size_than_the_frames_stay_as_they_are(tmp_path):
    home = one_video(tmp_path, {"0": [rle(shape(0, 24, 40)), None, None]})
    row = load("mevis", home)[0]
    assert (row["height"], row["width"]) == (HEIGHT, WIDTH)
    assert [mask["rle"]["size"] for mask in row["objects"][0]["masks"]] == [[24, 40]] * 3
    masks, annotated = read_masks(row, [0, 1])
    assert masks.shape == (1, 2, HEIGHT, WIDTH)
    assert (masks[0, 0] == shape(0, 24, 40)[1::2, 1::2]).all()
    assert not masks[0, 1].any()
    assert annotated.all()
    assert "masks of object '0' are 24x40, the frames are 12x20" in validate(load("mevis", home))[0]


def test_nothing_is_decoded_when_rows_are_made(tmp_path):
    """Frames whose pixels are cut off: their first bytes say how large they are, and no more is read."""
    home = write_mevis(tmp_path)
    for file in (home / "train" / "JPEGImages").rglob("*.jpg"):
        noise = np.random.default_rng(0).integers(0, 255, (HEIGHT * 20, WIDTH * 20, 3), dtype=np.uint8)
        Image.fromarray(noise).save(file)
        file.write_bytes(file.read_bytes()[:1000])
    row = load("mevis", tmp_path)[0]
    assert (row["height"], row["width"]) == (HEIGHT * 20, WIDTH * 20)
    with pytest.raises(DataError, match="not a readable image"):
        read_frames(row, [0])


def test_an_edited_file_makes_new_rows(tmp_path):
    home = one_video(tmp_path, {"0": masklet(0, 3)})
    assert len(load("mevis", home)) == 1
    file = home / "mevis" / "train" / "meta_expressions.json"
    listed = json.loads(file.read_text())
    listed["videos"]["aa"]["expressions"]["1"] = expression("another", 0)
    write_json(file, listed)
    assert len(load("mevis", home)) == 2


def test_official_numbers(tmp_path):
    from evqa.corpora.mevis import MeViS

    write_mevis(tmp_path)
    (warning,) = compare_with_official("mevis", {"train": load("mevis", tmp_path)}, MeViS.official)
    assert warning.startswith(
        "mevis train: 2 videos and 3 rows, where its authors state 1662 videos and 23051 rows or "
    )
    assert compare_with_official("mevis", {"train": load("mevis", tmp_path)}, {"train": [{"videos": 2}]}) == []


def test_an_unknown_layout_says_what_was_looked_for(tmp_path):
    (tmp_path / "mevis").mkdir()
    for name in ("mevis", "revos", "lv_vis", "ref_youtube_vos", "ref_davis17", "ref_sav", "groundmore", "vicas"):
        with pytest.raises(MissingDataError, match=f"{name}: no annotation files found; looked for ") as error:
            load(name, tmp_path)
        assert error.value.file == str(tmp_path)
        with pytest.raises(MissingDataError, match="does not download this corpus: get it from "):
            evqa.load_dataset(name)


# ---------------------------------------------------------------------------------------------- ReVOS
def write_revos(root, images="JPEGImages"):
    """Two videos, one of TAO; the frames in the authors' place, or directly beside the annotation."""
    frames = [f"{number:05d}" for number in range(4)]
    tao = {
        "0": expression("a bird", 5, type_id=0),
        "1": expression("what could fly away?", 5, type_id=1),
        "2": expression("the elephant", type_id=2),
    }
    listed = videos(TAO__x=(frames, tao), OVIS__y=(frames[:1], {"0": expression("a fish", 6, type_id=0)}))
    for split in ("train", "valid"):
        write_json(root / f"meta_expressions_{split}_.json", listed)
    absent = rle(np.zeros((HEIGHT, WIDTH)))
    write_json(root / "mask_dict.json", {"5": [None, rle(shape(3)), rle(shape(4)), absent], "6": masklet(1, 1)})
    foreground = {"TAO/x": {"masks_rle": masklet(2, 4)}, "OVIS/y": {"masks_rle": masklet(1, 1)}}
    write_json(root / "mask_dict_foreground.json", foreground)
    for video, record in listed["videos"].items():
        write_frames(root / images / video, [f"{name}.jpg" for name in record["frames"]])
    return root


@pytest.mark.parametrize(("folder", "images"), [("ReVOS", "JPEGImages"), ("revos", ".")])
def test_revos_in_both_layouts(tmp_path, folder, images):
    home = write_revos(tmp_path / folder, images)
    rows = load("revos", tmp_path, "valid")
    assert rows["entry_id"][:] == ["TAO/x/0", "TAO/x/1", "TAO/x/2", "OVIS/y/0"]
    assert rows["kind"][:] == ["query", "sentence", "query", "query"]
    assert rows[0]["frames"]["folder"] == os.path.abspath(home / images / "TAO" / "x")
    facts = [json.loads(row["metadata"]) for row in rows]
    # the span in which the object is seen; the clip itself is not cropped
    assert [fact["visible"] for fact in facts] == [[1, 2], [1, 2], None, [0, 0]]
    assert [fact["type"] for fact in facts] == ["referring", "reasoning", "no object", "referring"]
    assert rows[0]["num_frames"] == 4
    assert rows[2]["objects"] == []
    assert not decoded(rows[0]["objects"][0])[0].any()
    (region,) = rows[0]["regions"]
    assert region["name"] == "foreground"
    assert (coco.decode(region["masks"][0]["rle"]) == shape(2)).all()
    assert all(row["regions"] is None for row in load("revos", tmp_path, "train"))
    assert all(row["regions"] is None for row in load("revos", tmp_path, "valid", foreground=False))


def test_frames_in_an_archive(tmp_path):
    home = write_revos(tmp_path / "ReVOS")
    shutil.make_archive(str(home / "JPEGImages"), "zip", home, "JPEGImages")
    shutil.rmtree(home / "JPEGImages")
    row = load("revos", tmp_path)[0]
    assert os.path.isfile(os.path.join(row["frames"]["folder"], "00003.jpg"))
    assert not row["frames"]["folder"].startswith(str(tmp_path / "ReVOS"))


# --------------------------------------------------------------------------------------------- LV-VIS
def write_lv_vis(root):
    """YouTube-VIS form: two instances of one category and one of another."""
    names = [f"00007/{number:05d}.jpg" for number in range(2)]
    instances = {
        "videos": [{"id": 7, "file_names": names, "height": HEIGHT, "width": WIDTH, "length": 2}],
        "categories": [{"id": 3, "name": "car_(automobile)"}, {"id": 4, "name": "toy_dog"}],
        "annotations": [
            {"id": 1, "video_id": 7, "category_id": 3, "segmentations": [rle(shape(0), list), None]},
            {"id": 2, "video_id": 7, "category_id": 4, "segmentations": [None, rle(shape(1))]},
            {"id": 3, "video_id": 7, "category_id": 3, "segmentations": [rle(shape(2)), rle(shape(2))]},
        ],
    }
    write_json(root / "train_instances.json", instances)
    write_json(root / "val_instances.json", instances)
    for split in ("train", "val"):
        write_frames(root / split / "JPEGImages" / "00007", ["00000.jpg", "00001.jpg"])
    return instances


def test_lv_vis_instances_and_the_form_with_expressions_agree(tmp_path):
    instances = write_lv_vis(tmp_path / "LVVIS")
    theirs = load("lv_vis", tmp_path / "LVVIS")
    assert theirs["expression"][:] == ["car (automobile)", "toy dog"]
    assert json.loads(theirs[0]["metadata"])["category"] == "car_(automobile)"
    assert [item["object_id"] for item in theirs[0]["objects"]] == ["1", "3"]
    assert load("lv_vis", tmp_path / "LVVIS", "val")["entry_id"][:] == theirs["entry_id"][:] == ["00007/3", "00007/4"]

    home = tmp_path / "data" / "lvvis"
    exps = {"0": expression("car_(automobile)", 1, 3), "1": expression("toy_dog", 2)}
    write_json(home / "meta_expressions.json", videos(**{"00007": (["00000", "00001"], exps)}))
    write_json(home / "mask_dict.json", {str(a["id"]): a["segmentations"] for a in instances["annotations"]})
    write_frames(home / "train" / "JPEGImages" / "00007", ["00000.jpg", "00001.jpg"])
    ours = load("lv_vis", tmp_path / "data")
    assert ours["expression"][:] == theirs["expression"][:]
    assert [row["objects"] for row in ours] == [row["objects"] for row in theirs]
    masks, annotated = read_masks(ours[0], [0, 1])
    assert annotated.all()
    assert (masks[0, 0] == shape(0)).all()
    assert not masks[0, 1].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("categories"), "the file has no 'categories'"),
        (lambda v: v["annotations"][0].update(video_id=99), "a video or category that is not listed"),
        (lambda v: v["annotations"].append(3), "an annotation is a int"),
        (lambda v: v["videos"][0].update(file_names=[]), "the video 7 has no file_names"),
        (lambda v: v["videos"][0].update(file_names=["a/0.jpg", "b/1.jpg"]), "in more than one folder"),
        (lambda v: v["annotations"][0].update(segmentations=None), None),
    ],
)
def test_lv_vis_that_contradicts_itself(tmp_path, change, message):
    instances = write_lv_vis(tmp_path)
    change(instances)
    write_json(tmp_path / "train_instances.json", instances)
    if message is None:
        assert load("lv_vis", tmp_path)[0]["objects"][0] == {"object_id": "1", "masks": None}
        return
    with pytest.raises(EvqaError, match=message) as error:
        load("lv_vis", tmp_path)
    assert error.value.file.endswith("train_instances.json")


def test_palette_helper_is_a_palette(tmp_path):
    """The label maps of these tests are of the kind that is published."""
    palette_png(tmp_path / "x.png", shape(0) * 2)
    with Image.open(tmp_path / "x.png") as image:
        assert image.mode == "P"
        assert (np.asarray(image) == shape(0) * 2).all()
