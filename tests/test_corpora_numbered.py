"""Ref-YouTube-VOS and Ref-DAVIS17: one mask per expression under a running number, and label maps."""

from __future__ import annotations

import json
import logging
import os
import pickle
import random

import numpy as np
import pytest
from corpus_data import FRAMES, HEIGHT, WIDTH, load, palette_png, rle, shape, videos, write_frames, write_json
from PIL import Image
from pycocotools import mask as coco

import evqa
from evqa.corpora.checks import validate
from evqa.errors import ArchiveError, DataError, MaskError

pytestmark = pytest.mark.usefixtures("own_cache")


def mask_of(row, frame=0):
    (item,) = row["objects"]
    return coco.decode(item["masks"][frame]["rle"])


# Two videos in the file's order, which is not that of their names; the first has 13 expressions of 4 objects.
LISTED = videos(
    zebra=(FRAMES, {str(n): {"exp": f"zebra {n}", "obj_id": str(1 + n % 4)} for n in range(13)}),
    ant=(FRAMES[:2], {str(n): {"exp": f"ant {n}", "obj_id": "9"} for n in range(2)}),
)
OBJECTS = {("zebra", str(1 + n)): n for n in range(4)} | {("ant", "9"): 5}


def counted(order):
    """(video, expression) in the order in which a pickle counts."""
    listed = LISTED["videos"]
    if order == "file":
        return [(video, key) for video in listed for key in listed[video]["expressions"]]
    return [(video, key) for video in sorted(listed) for key in sorted(listed[video]["expressions"])]


def write_pickle(file, order="text", change=lambda value: None):
    file.parent.mkdir(parents=True, exist_ok=True)
    value = {}
    for number, (video, key) in enumerate(counted(order)):
        record = LISTED["videos"][video]
        mask = shape(OBJECTS[video, record["expressions"][key]["obj_id"]])
        value[str(number)] = [rle(mask, bytes), *[None] * (len(record["frames"]) - 1)]
    change(value)
    file.write_bytes(pickle.dumps(value))
    return file


def write_youtube_vos(root, order="text", pickled="mask_dict.pkl"):
    home = root / "ref_youtube_vos"
    write_json(home / "meta_expressions" / "train" / "meta_expressions.json", LISTED)
    for video, record in LISTED["videos"].items():
        write_frames(home / "train" / "JPEGImages" / video, [f"{name}.jpg" for name in record["frames"]])
    if pickled:
        write_pickle(home / pickled, order)
    return home


@pytest.mark.parametrize("pickled", ["mask_dict.pkl", "train/mask_dict.pkl"])
def test_masks_are_counted_by_sorted_videos_and_ids_sorted_as_text(tmp_path, pickled):
    write_youtube_vos(tmp_path, pickled=pickled)
    rows = load("ref_youtube_vos", tmp_path)
    assert len(rows) == 15
    for row in rows:
        (item,) = row["objects"]
        assert (mask_of(row) == shape(OBJECTS[row["video_id"], item["object_id"]])).all(), row["entry_id"]
        assert [mask["frame"] for mask in item["masks"]] == list(range(row["num_frames"]))
        assert not mask_of(row, 1).any()  # a frame without the object is null in the pickle
    # What counting as the file stands would have given: other masks, and no length tells.
    wrong = [one for one, other in zip(counted("file"), counted("text"), strict=True) if one != other]
    assert len(wrong) > 10


def test_a_pickle_counted_as_the_file_stands_is_found_out(tmp_path):
    write_youtube_vos(tmp_path, "file")
    with pytest.raises(DataError, match="counted in the order 'file'.*Pass mask_order='file'") as error:
        load("ref_youtube_vos", tmp_path)
    assert error.value.file.endswith("mask_dict.pkl")
    rows = load("ref_youtube_vos", tmp_path, mask_order="file")
    assert all((mask_of(row) == shape(OBJECTS[row["video_id"], row["objects"][0]["object_id"]])).all() for row in rows)
    with pytest.raises(ValueError, match="mask_order must be one of text, file"):
        load("ref_youtube_vos", tmp_path, mask_order="insertion")


def test_a_pickle_that_fits_neither_order_is_said(tmp_path, caplog):
    home = write_youtube_vos(tmp_path, pickled=None)
    write_pickle(home / "mask_dict.pkl", change=lambda v: v["8"].__setitem__(0, rle(shape(30), bytes)))
    with caplog.at_level(logging.WARNING):
        assert len(load("ref_youtube_vos", tmp_path)) == 15
    assert "in neither order do all expressions of one object have the same masks" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("14"), "14 masklets for 15 expressions"),
        (lambda v: v.update({"15": v.pop("14")}), "there is no masklet 14"),
        (lambda v: v.update({"0": []}), "0 masks under '0' for a video of 2 frames"),
        (lambda v: v.update({"0": 3}), "are a int, not a list"),
        (lambda v: v.update({"0": [{1, 2}, None]}), "holds what masks do not"),
    ],
)
def test_pickles_that_do_not_fit(tmp_path, change, message):
    home = write_youtube_vos(tmp_path, pickled=None)
    write_pickle(home / "mask_dict.pkl", change=change)
    with pytest.raises(DataError, match=message) as error:
        load("ref_youtube_vos", tmp_path)
    assert error.value.file == str(home / "mask_dict.pkl")


class Harmful:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_a_pickle_cannot_run_anything(tmp_path):
    home = write_youtube_vos(tmp_path, pickled=None)
    target = str(tmp_path / "made by the pickle")
    (home / "mask_dict.pkl").write_bytes(pickle.dumps({"0": Harmful(target)}))
    with pytest.raises(ArchiveError, match="refused: the pickle asks for posix.mkdir"):
        load("ref_youtube_vos", tmp_path)
    assert not os.path.exists(target)
    for content in (b"", b"\x80\x04x", pickle.dumps([1])):
        (home / "mask_dict.pkl").write_bytes(content)
        with pytest.raises(DataError):
            load("ref_youtube_vos", tmp_path)


def write_maps(root, maps):
    for name, labels in maps.items():
        palette_png(root / f"{name}.png", labels)


def test_label_maps_of_the_authors_with_void_and_categories(tmp_path, caplog):
    home = write_youtube_vos(tmp_path, pickled=None)
    for video, record in LISTED["videos"].items():
        labels = np.zeros((HEIGHT, WIDTH), dtype=int)
        labels[1:3, 1:5], labels[4:6, 1:5], labels[8:, 10:] = 1, 9, 255
        write_maps(home / "train" / "Annotations" / video, dict.fromkeys(record["frames"], labels))
    objects = {key: {"category": "zebra", "frames": []} for key in "1234"}
    listed = {"zebra": {"objects": objects}, "ant": {"objects": {"9": {"category": "ant", "frames": []}}}}
    write_json(home / "train" / "meta.json", {"videos": listed})
    rows = load("ref_youtube_vos", tmp_path)
    by_id = {row["entry_id"]: row for row in rows}
    assert mask_of(by_id["zebra/0"]).sum() == 8
    assert mask_of(by_id["ant/1"])[4:6, 1:5].all()
    assert not mask_of(by_id["zebra/1"]).any()  # object 2 is in no frame
    assert json.loads(by_id["ant/0"]["metadata"]) == {"obj_id": "9", "category": "ant"}
    for row in rows:
        (region,) = row["regions"]
        assert region["name"] == "void"
        assert coco.decode(region["masks"][0]["rle"]).sum() == 4 * 10
    assert "train zebra/1: object '2' is in no frame" in [f"train {problem}" for problem in validate(rows)]


def test_label_maps_win_over_the_pickle_and_bad_ones_are_named(tmp_path):
    home = write_youtube_vos(tmp_path)
    for video, record in LISTED["videos"].items():
        labels = np.full((HEIGHT, WIDTH), 9)
        write_maps(home / "train" / "Annotations" / video, dict.fromkeys(record["frames"], labels))
    assert mask_of(load("ref_youtube_vos", tmp_path)[13]).all()
    bad = home / "train" / "Annotations" / "ant" / "00005.png"
    bad.unlink()  # a file overwritten in place is not looked for among so many
    Image.new("RGB", (WIDTH, HEIGHT)).save(bad)
    with pytest.raises(MaskError, match="must be a palette or grey image, this is RGB") as error:
        load("ref_youtube_vos", tmp_path)
    assert (error.value.entry, error.value.file) == ("ant/0", str(bad))
    bad.unlink()
    with pytest.raises(MaskError, match="there is no such file"):
        load("ref_youtube_vos", tmp_path)


@pytest.mark.parametrize(
    ("value", "message"),
    [(None, "must be one object's id, got None"), (["1", "2"], "one object's id"), ("dog", "must be a number")],
)
def test_an_object_id_that_is_none(tmp_path, value, message):
    home = write_youtube_vos(tmp_path, pickled=None)
    (home / "train" / "Annotations" / "ant").mkdir(parents=True)
    listed = json.loads(json.dumps(LISTED))
    listed["videos"]["ant"]["expressions"]["0"]["obj_id"] = value
    listed["videos"].pop("zebra")
    write_json(home / "meta_expressions" / "train" / "meta_expressions.json", listed)
    with pytest.raises(DataError, match=message) as error:
        load("ref_youtube_vos", tmp_path)
    assert error.value.entry == "ant/0"


def write_valid(root, *, test, folders):
    home = root / "ref_youtube_vos"
    frames = ("00015", "00018", "00038")  # they neither start at 0 nor are evenly apart
    both = videos(aa=(frames, {"0": {"exp": "one"}}), bb=(frames, {"0": {"exp": "two"}}))
    write_json(home / "meta_expressions" / "valid" / "meta_expressions.json", both)
    if test:
        listed = {"videos": {"bb": both["videos"]["bb"]}}
        write_json(home / "meta_expressions" / "test" / "meta_expressions.json", listed)
    for video in folders:
        write_frames(home / "valid" / "JPEGImages" / video, [f"{name}.jpg" for name in frames])


@pytest.mark.parametrize(("test", "folders"), [(True, ["aa"]), (False, ["aa"]), (True, [])])
def test_the_file_of_valid_lists_the_videos_of_test_too(tmp_path, test, folders):
    write_valid(tmp_path, test=test, folders=folders)
    splits = evqa.load_dataset("ref_youtube_vos", data_dir=str(tmp_path))
    (row,) = splits["valid"]
    assert (row["video_id"], row["objects"], row["num_frames"]) == ("aa", None, 3)
    assert row["frames"]["names"][0] == "00015.jpg"
    if test:
        assert splits["test"]["video_id"][:] == ["bb"]


def test_valid_that_cannot_be_told_from_test_is_said(tmp_path, caplog):
    write_valid(tmp_path, test=False, folders=[])
    with caplog.at_level(logging.WARNING):
        rows = load("ref_youtube_vos", tmp_path, "valid")
    assert len(rows) == 2
    assert "they cannot be told apart, so all 2 are kept" in caplog.text


# ---------------------------------------------------------------------------------------- Ref-DAVIS17
def write_davis(root):
    """The authors' layout: four text files, label maps, ImageSets. dogs-scale has 3 objects, hence 12 expressions."""
    home = root / "ref_davis17"
    texts = home / "davis_text_annotations"
    texts.mkdir(parents=True)
    names = ["Davis17_annot1", "Davis17_annot1_full_video", "Davis17_annot2", "Davis17_annot2_full_video"]
    for number, name in enumerate(names):
        lines = [f'dog-scale {one} "dog {one} of set {number}"' for one in (1, 2, 3)]
        lines.append(f'clasic-car 1 "le café {number}"')
        random.Random(number).shuffle(lines)
        (texts / f"{name}.txt").write_bytes("\n".join(lines).encode("latin-1" if "annot2" in name else "utf-8"))
    davis = home / "DAVIS"
    frames = ["00000", "00001"]
    for split, listed in (("train", ["dogs-scale"]), ("val", ["classic-car"])):
        (davis / "ImageSets" / "2017").mkdir(parents=True, exist_ok=True)
        (davis / "ImageSets" / "2017" / f"{split}.txt").write_text("\n".join(listed) + "\n")
    for video in ("dogs-scale", "classic-car"):
        write_frames(davis / "JPEGImages" / "480p" / video, [f"{name}.jpg" for name in frames])
        maps = davis / "Annotations_unsupervised" / "480p" / video
        for frame in frames:
            if video == "classic-car":  # the form of DAVIS 2016: grey, 0 and 255, one object
                maps.mkdir(parents=True, exist_ok=True)
                Image.fromarray(shape(1) * 255).save(maps / f"{frame}.png")
            else:
                labels = np.zeros((HEIGHT, WIDTH), dtype=int)
                labels[0:2], labels[2:4], labels[10:] = 1, 2, 255  # object 3 is in no frame
                palette_png(maps / f"{frame}.png", labels)
    return home


def test_davis_texts_of_the_authors(tmp_path):
    write_davis(tmp_path)
    rows = load("ref_davis17", tmp_path)
    assert rows["video_id"][:] == ["dogs-scale"] * 12  # spelt dog-scale in the texts
    assert rows["expression_id"][:] == [str(number) for number in range(12)]
    # object by object, of each one expression of every set
    assert rows["expression"][:] == [f"dog {one} of set {number}" for one in (1, 2, 3) for number in range(4)]
    facts = [json.loads(row["metadata"]) for row in rows]
    assert [fact["set"] for fact in facts] == [0, 1, 2, 3] * 3
    assert [(fact["annotator"], fact["seen"]) for fact in facts[:4]] == [
        (1, "first_frame"), (1, "full_video"), (2, "first_frame"), (2, "full_video"),
    ]  # fmt: skip
    assert mask_of(rows[4])[2:4].all()
    assert not mask_of(rows[8]).any()
    assert [row["regions"][0]["name"] for row in rows] == ["void"] * 12
    assert [problem for problem in validate(rows) if "object '3' is in no frame" in problem]
    valid = load("ref_davis17", tmp_path, "valid")
    assert valid["expression"][:] == [f"le café {number}" for number in range(4)]
    assert all((mask_of(row) == shape(1)).all() and row["regions"] is None for row in valid)


def test_davis_converted_with_pickles_is_the_same(tmp_path):
    theirs = load("ref_davis17", write_davis(tmp_path / "authors"))
    home = tmp_path / "data" / "ref_davis17"
    expressions = {str(n): {"exp": row["expression"], "obj_id": str(1 + n // 4)} for n, row in enumerate(theirs)}
    listed = videos(**{"dogs-scale": (["00000", "00001"], expressions)})
    write_json(home / "meta_expressions" / "train" / "meta_expressions.json", listed)
    write_frames(home / "DAVIS" / "JPEGImages" / "480p" / "dogs-scale", ["00000.jpg", "00001.jpg"])
    (home / "train").mkdir()
    value = {}
    for number, key in enumerate(sorted(expressions)):
        masks = [rle(coco.decode(mask["rle"]), bytes) for mask in theirs[int(key)]["objects"][0]["masks"]]
        value[str(number)] = [mask if coco.area(mask) else None for mask in masks]
    (home / "train" / "mask_dict.pkl").write_bytes(pickle.dumps(value))
    rows = load("ref_davis17", tmp_path / "data")
    for ours, other in zip(rows, theirs, strict=True):
        assert {k: ours[k] for k in ("expression_id", "expression")} == {
            k: other[k] for k in ("expression_id", "expression")
        }
        assert json.loads(ours["metadata"])["set"] == json.loads(other["metadata"])["set"]
        for frame in (0, 1):
            assert (mask_of(ours, frame) == mask_of(other, frame)).all(), ours["entry_id"]


def test_davis_that_is_not_whole(tmp_path, caplog):
    home = write_davis(tmp_path)
    file = home / "davis_text_annotations" / "Davis17_annot2.txt"
    whole = file.read_bytes()
    file.write_bytes(whole + b"\ndog-scale x no quotes")
    with pytest.raises(DataError, match="line 5 is not <video> <object>"):
        load("ref_davis17", tmp_path)
    file.write_bytes(b"\n".join(line for line in whole.split(b"\n") if b'scale 3 "' not in line))
    with caplog.at_level(logging.WARNING):
        assert len(load("ref_davis17", tmp_path)) == 8
    assert "the four text files have 3, 3, 2, 3 expressions" in caplog.text
    file.unlink()
    with pytest.raises(DataError, match="the authors' layout is not whole"):
        load("ref_davis17", tmp_path)
