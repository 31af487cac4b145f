"""Ref-SAV, GroundMoRe and ViCaS: videos instead of frames, clock times, tracks by frame."""

from __future__ import annotations

import json
import logging
import shutil

import numpy as np
import pytest
from corpus_data import (
    HEIGHT,
    WIDTH,
    decoded,
    expression,
    load,
    palette_png,
    rle,
    shape,
    videos,
    write_frames,
    write_json,
)
from PIL import Image
from pycocotools import mask as coco

import evqa
from evqa.corpora.reading import read_clip
from evqa.errors import DataError, MaskError, MissingDataError

pytestmark = pytest.mark.usefixtures("own_cache")


# -------------------------------------------------------------------------------------------- Ref-SAV
SAV = "sav_000042"


def sav_annotation(frames=9, objects=2, **change):
    """An annotation of a 24 fps video, of which every fourth frame is annotated; numbers are floats, as published."""
    annotated = -(-frames // 4)
    masklet = [[rle(shape(7 * one + t)) for one in range(objects)] for t in range(annotated)]
    return {
        "video_id": SAV, "video_duration": frames / 24, "video_frame_count": float(frames),
        "video_height": float(HEIGHT), "video_width": float(WIDTH), "video_environment": "Indoor",
        "masklet": masklet, "masklet_id": list(range(objects)), "masklet_num": objects,
        "masklet_first_appeared_frame": [0.0] * objects, "masklet_stability_score": [None] * objects, **change,
    }  # fmt: skip


def write_sav(root, annotation=None, *, kind="manual", video=True, prefix="sam_v_full", record=None, where="sav"):
    """The layout of UniPixel: ``ref_sav/`` beside ``sav/``, whose place the first part of published paths takes."""
    annotation = annotation or sav_annotation()
    folder = root / where / "sav_train" / "sav_000"
    write_json(folder / f"{SAV}_{kind}.json", annotation)
    if video:
        write_video(folder / f"{SAV}.mp4", int(annotation["video_frame_count"]))
    inner = f"{prefix}/sav_train/sav_000/{SAV}"
    one = {"video_id": SAV, "obj_id": 1, "formated": "A box that stays where it is."}
    listed = {
        SAV: {"video_path": f"{inner}.mp4", "anno_path": f"{inner}_{kind}.json", "objects": {"1": one}} | (record or {})
    }
    write_json(root / "ref_sav" / "Ref-SAV-Min-Ratio-0.3.json", listed)
    return root


def write_video(path, frames):
    """Grey frames, 16 levels apart: a frame's level tells its number."""
    pytest.importorskip("av")
    from evqa.video import write_clip

    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.arange(frames, dtype=np.uint8) * 16 + 16
    write_clip(path, np.broadcast_to(levels[:, None, None, None], (frames, HEIGHT * 4, WIDTH * 4, 3)).copy(), 24.0)


def test_annotation_t_is_frame_4t_of_the_video(tmp_path):
    write_sav(tmp_path)
    (row,) = load("ref_sav", tmp_path)
    assert (row["entry_id"], row["kind"]) == (f"{SAV}/1", "description")
    assert (row["num_frames"], row["stride"], row["frame_numbers"], row["frames"]) == (3, 4, [0, 4, 8], None)
    assert row["video_name"] == f"sam_v_full/sav_train/sav_000/{SAV}.mp4"
    (item,) = row["objects"]
    assert [mask["time"] for mask in item["masks"]] == pytest.approx([0, 4 / 24, 8 / 24])
    assert all((mask == shape(7 + t)).all() for t, mask in decoded(item).items())
    facts = json.loads(row["metadata"])["sav"]
    assert (facts["masklet_id"], facts["masklet_first_appeared_frame"]) == (1, 0.0)

    clip = read_clip(row, [2, 0, 1], (HEIGHT, WIDTH))
    # the frames are those of the video whose number is four times the annotation's
    assert clip.frames.mean(axis=(1, 2, 3)) == pytest.approx([16 + 8 * 16, 16, 16 + 4 * 16], abs=4)
    assert (clip.masks[0, 0] == shape(7 + 2)).all()


@pytest.mark.parametrize(
    ("kind", "prefix", "where"),
    [("manual", "other", "sav"), ("auto", "sav", "sav"), ("manual", "sam_v_full", "sam_v_full")],
)
def test_where_sa_v_is_looked_for(tmp_path, kind, prefix, where):
    write_sav(tmp_path, kind=kind, prefix=prefix, where=where, video=False)
    (row,) = load("ref_sav", tmp_path)
    assert row["video"] is None
    shutil.move(tmp_path / where, tmp_path / "elsewhere")
    with pytest.raises(MissingDataError, match="its sav_train is not here; link it beside the file or pass sav_dir="):
        load("ref_sav", tmp_path)
    assert len(load("ref_sav", tmp_path, sav_dir=str(tmp_path / "elsewhere"))) == 1


def test_an_absent_object_is_an_rle_without_foreground(tmp_path):
    annotation = sav_annotation()
    annotation["masklet"][1][1] = rle(np.zeros((HEIGHT, WIDTH)))
    write_sav(tmp_path, annotation, video=False)
    found = decoded(load("ref_sav", tmp_path)[0]["objects"][0])
    assert sorted(found) == [0, 1, 2]
    assert [bool(mask.any()) for mask in found.values()] == [True, False, True]


@pytest.mark.parametrize(
    ("annotation", "record", "message"),
    [
        (sav_annotation(video_frame_count=13.0), None, "3 annotated frames for a video of 13"),
        (sav_annotation(video_height=None), None, "video_frame_count, _height, _width or _duration cannot be read"),
        (sav_annotation(masklet=[]), None, "masklet must be a list of frames"),
        (sav_annotation(masklet=[[None], [None, None], [None]]), None, "different numbers of objects"),
        (sav_annotation(objects=1), None, "there is no object 1 among the 1 of"),
        (sav_annotation(video_id="sav_000001"), None, "is the annotation of 'sav_000001'"),
        (None, {"anno_path": "../../secret.json"}, "must be paths inside the data"),
        (None, {"anno_path": "/etc/passwd"}, "must be paths inside the data"),
        (None, {"anno_path": 3}, "must be paths inside the data"),
        (None, {"anno_path": "x/sav_train/sav_000/nothing.json"}, "is not there, also without its first part"),
        (None, {"objects": {"1": {"video_id": SAV, "obj_id": 0, "formated": "x"}}}, "the record says it is object 0"),
        (None, {"objects": {"a": {"formated": "x"}}}, "a record under a number"),
        (None, {"objects": {"1": {"formated": None}}}, "the expression must be text"),
        (None, {"objects": []}, 'has no "objects" object'),
    ],
)
def test_sav_that_contradicts_itself(tmp_path, annotation, record, message):
    write_sav(tmp_path, annotation, record=record, video=False)
    with pytest.raises(DataError) as error:
        load("ref_sav", tmp_path)
    assert message in str(error.value)
    assert str(error.value).startswith("ref_sav: ")
    assert error.value.file


def test_sav_two_lists_of_train(tmp_path):
    write_sav(tmp_path, video=False)
    shutil.copy(tmp_path / "ref_sav" / "Ref-SAV-Min-Ratio-0.3.json", tmp_path / "ref_sav" / "Ref-SAV.json")
    with pytest.raises(DataError, match="say which with train_file="):
        load("ref_sav", tmp_path)
    assert len(load("ref_sav", tmp_path, train_file="Ref-SAV.json")) == 1


def test_sav_valid_names_frames_by_their_number(tmp_path):
    home = tmp_path / "ref_sav" / "valid"
    listed = videos(**{SAV: (["00004", "00008"], {"0": expression("a box", 3)})})
    write_json(home / "meta_expressions_valid.json", listed)
    write_json(home / "mask_dict.json", {"3": [rle(shape(0)), None]})
    write_video(tmp_path / "sav" / "sav_train" / SAV[:7] / f"{SAV}.mp4", 9)
    (row,) = load("ref_sav", tmp_path, "valid")
    assert (row["frame_numbers"], row["stride"]) == ([4, 8], 4)
    assert row["video"]["path"].endswith(f"sav_train/{SAV[:7]}/{SAV}.mp4")
    assert not decoded(row["objects"][0])[1].any()
    assert read_clip(row, [1]).frames.mean() == pytest.approx(16 + 8 * 16, abs=4)
    listed["videos"][SAV]["frames"] = ["first", "second"]
    write_json(home / "meta_expressions_valid.json", listed)
    with pytest.raises(DataError, match="not named after their numbers"):
        load("ref_sav", tmp_path, "valid")


def test_sav_figures_recomputed_from_the_rows_are_the_published_ones(shared, tmp_path):
    """Visible area, first appearance and changes of visibility of every object of a real SA-V annotation."""
    published = json.loads((shared / "data" / "sav" / "sav_000001_manual.json").read_text())
    folder = tmp_path / "sav" / "sav_train" / "sav_000"
    folder.mkdir(parents=True)
    shutil.copy(shared / "data" / "sav" / "sav_000001_manual.json", folder)
    objects = {
        str(k): {"video_id": "sav_000001", "obj_id": k, "formated": f"object {k}"}
        for k in range(published["masklet_num"])
    }
    paths = {
        "video_path": "x/sav_train/sav_000/sav_000001.mp4",
        "anno_path": "x/sav_train/sav_000/sav_000001_manual.json",
    }
    write_json(tmp_path / "ref_sav" / "Ref-SAV.json", {"sav_000001": {**paths, "objects": objects}})
    rows = load("ref_sav", tmp_path)
    assert len(rows) == published["masklet_num"] == 5
    assert rows[0]["num_frames"] == 121  # of 483 frames
    pixels = published["video_height"] * published["video_width"]
    for number, row in enumerate(rows):
        areas = np.array([int(coco.area(mask["rle"])) for mask in row["objects"][0]["masks"]])
        visible = areas > 0
        assert areas[visible].mean() == pytest.approx(published["masklet_size_abs"][number])
        assert areas[visible].mean() / pixels == pytest.approx(published["masklet_size_rel"][number])
        first = int(np.argmax(visible))
        assert first == published["masklet_first_appeared_frame"][number]
        since = visible[first:]  # to appear for the first time is no change
        assert int((since[1:] != since[:-1]).sum()) == published["masklet_visibility_changes"][number]


# ----------------------------------------------------------------------------------------- GroundMoRe
CLIP = "abc_0158_0201"  # 1:58 to 2:01 of its source


def write_groundmore(root, questions=None, clip=CLIP, maps=(0, 1, 2, 10, 11), frames=12, folder="annotations"):
    home = root / "groundmore"
    question = {
        "question": "Who jumped before the ball came", "answer": "the man", "q_type": "Causal", "obj_id": "1, 2",
        "action_start": "1:59", "action_end": "0:02:00",
    }  # fmt: skip
    write_json(home / "trainval_v2.json", {"videos": {clip: {"questions": questions or {"0": question}}}})
    # Names without leading zeros: their order as text is not that of their numbers.
    names = [f"frame_{number}" for number in range(frames)]
    write_frames(home / folder / clip / "images", [f"{name}.jpg" for name in names])
    for number in maps:
        labels = np.zeros((HEIGHT, WIDTH), dtype=int)
        labels[0:2], labels[2:4], labels[10:] = 1, 2 if number != 10 else 0, 255
        palette_png(home / folder / clip / "masks" / f"{names[number]}.png", labels)
    return question


def test_groundmore_times_objects_and_missing_maps(tmp_path):
    write_groundmore(tmp_path)
    (row,) = load("groundmore", tmp_path)
    assert (row["kind"], row["expression"]) == ("question", "Who jumped before the ball came?")
    assert row["answer"] == "the man"
    assert row["frames"]["names"][:3] == ["frame_0.jpg", "frame_1.jpg", "frame_2.jpg"]  # by number, not by name
    assert row["frames"]["times"] == pytest.approx([number / 6 for number in range(12)])
    facts = json.loads(row["metadata"])
    assert (facts["clip_start"], facts["clip_end"]) == (118, 121)
    assert (facts["action"], facts["action_frames"]) == ([1, 2], [6, 11])
    assert [item["object_id"] for item in row["objects"]] == ["1", "2"]
    second = decoded(row["objects"][1])
    assert sorted(second) == [0, 1, 2, 10, 11]  # without a label map nothing is known
    assert second[0][2:4].all()
    assert not second[10].any()  # with one, it is known that the object is not there
    assert row["regions"][0]["name"] == "void"


def test_groundmore_is_scored_on_20_frames_and_empty_outside_the_action(tmp_path):
    from evqa.corpora.groundmore import evaluation_targets

    write_groundmore(tmp_path, maps=range(12))
    targets = evaluation_targets(load("groundmore", tmp_path)[0])
    places = [place for place, _ in targets]
    assert places == np.linspace(0, 11, 20, dtype=int).tolist()
    for place, mask in targets:
        assert (mask is None) == (place < 6)
        if mask is not None:
            union = coco.decode(mask)
            assert union[0:2].all()
            assert union[2:4].all() == (place != 10)
    row = load("groundmore", tmp_path)[0]
    row["objects"] = None
    with pytest.raises(DataError, match="the row has no masks"):
        evaluation_targets(row)


@pytest.mark.parametrize(
    ("change", "clip", "message"),
    [
        ({"obj_id": "man"}, CLIP, "one or more different numbers, got 'man'"),
        ({"obj_id": "1, 1"}, CLIP, "different numbers"),
        ({"obj_id": None}, CLIP, "different numbers, got None"),
        ({"action_start": "1.59"}, CLIP, "action_start must be a clock time"),
        ({"action_end": None}, CLIP, "action_end must be a clock time"),
        ({}, "abc", "does not end in its times"),
        ({"question": ""}, CLIP, "the expression must be text"),
        ({"answer": 3}, CLIP, "the answer must be text"),
    ],
)
def test_groundmore_that_is_malformed(tmp_path, change, clip, message):
    question = write_groundmore(tmp_path)
    shutil.rmtree(tmp_path / "groundmore")
    write_groundmore(tmp_path, {"7": {**question, **change}}, clip)
    with pytest.raises(DataError, match=message) as error:
        load("groundmore", tmp_path)
    assert error.value.entry == f"{clip}/7"
    assert error.value.file.endswith("trainval_v2.json")


def test_groundmore_folders(tmp_path, caplog):
    write_groundmore(tmp_path, folder="groundmore_v2")
    clip = tmp_path / "groundmore" / "groundmore_v2" / CLIP
    assert load("groundmore", tmp_path)[0]["frames"]["folder"] == str(clip / "images")
    (clip / "masks" / "frame_99.png").write_bytes(b"")
    with pytest.raises(DataError, match="the label map 'frame_99' has no image of its name"):
        load("groundmore", tmp_path)
    (clip / "masks" / "frame_99.png").unlink()
    shutil.copy(clip / "images" / "frame_1.jpg", clip / "images" / "frame_01.jpg")
    with pytest.raises(DataError, match="two images of the clip have one number"):
        load("groundmore", tmp_path)
    shutil.rmtree(clip)
    with pytest.raises(MissingDataError, match="the clips are not here"):
        load("groundmore", tmp_path)


# ---------------------------------------------------------------------------------------------- ViCaS
def vicas_annotation(**change):
    """Two tracks in three frames; track 7 is not listed in the second."""
    frames = [
        {"filename": "00000.jpg", "is_gt": True, "track_ids": [5, 7], "mask_rles": [rle(shape(0)), rle(shape(1))]},
        {"filename": "00001.jpg", "is_gt": False, "track_ids": [5], "mask_rles": [rle(shape(2))]},
        {"filename": "00030.jpg", "is_gt": True, "track_ids": [7, 5], "mask_rles": [rle(shape(3)), rle(shape(4))]},
    ]
    return {
        "video_id": 12, "src_dataset": "oops", "filename": "000012_fall.mp4", "image_size": [HEIGHT, WIDTH],
        "caption_raw_en": "A <object>man</object> falls", "all_track_ids": [5, 7], "segmentations": frames,
        "object_referrals": [{"prompt": "the man who falls", "track_ids": [7]}, {"prompt": "all", "track_ids": [5, 7]}],
        **change,
    }  # fmt: skip


def write_vicas(root, annotation=None, *, form="authors", splits=(("train", [12]),), frames=True):
    home = root / "vicas"
    annotation = annotation or vicas_annotation()
    for split, listed in splits:
        write_json(home / "splits" / "v1.0" / f"{split}.json", listed)
    if frames:
        write_frames(home / "video_frames" / "000012", [item["filename"] for item in annotation["segmentations"]])
    if form == "authors":
        write_json(home / "annotations" / "v1.0" / "000012.json", annotation)
        return home
    light = json.loads(json.dumps(annotation))
    for number, referral in enumerate(annotation["object_referrals"]):
        masks = []
        for frame in annotation["segmentations"]:
            found = dict(zip(frame["track_ids"], frame["mask_rles"], strict=True))
            masks.append([found.get(track) for track in referral["track_ids"]])
        write_json(home / "masks" / "000012" / f"{number}.json", masks)
    for frame in light["segmentations"]:
        del frame["mask_rles"]
    write_json(home / "annotations" / "annotations_wo_masks_v1.0.json", {"000012": light})
    return home


@pytest.mark.parametrize("form", ["authors", "unipixel"])
def test_vicas_tracks_that_a_frame_does_not_list(tmp_path, form):
    write_vicas(tmp_path, form=form)
    one, both = load("vicas", tmp_path)
    assert (one["entry_id"], one["expression"], one["kind"]) == ("000012/0", "the man who falls", "sentence")
    assert [item["object_id"] for item in both["objects"]] == ["5", "7"]
    found = decoded(one["objects"][0])
    assert sorted(found) == [0, 1, 2]
    assert (found[0] == shape(1)).all()
    assert not found[1].any()
    assert (found[2] == shape(3)).all()  # the order of tracks is that of the frame, not that of the referral
    assert (decoded(both["objects"][0])[2] == shape(4)).all()
    facts = json.loads(one["metadata"])
    assert (facts["is_gt"], facts["track_ids"]) == ([0, 2], [7])
    assert "caption_raw_en" not in facts
    assert one["frames"]["times"] == [0, 1 / 30, 1.0]
    more = json.loads(load("vicas", tmp_path, captions=True)[0]["metadata"])
    assert more["caption_raw_en"].startswith("A <object>")


def test_vicas_both_forms_give_the_same_rows(tmp_path):
    write_vicas(tmp_path / "a")
    write_vicas(tmp_path / "b", form="unipixel")
    for one, other in zip(load("vicas", tmp_path / "a"), load("vicas", tmp_path / "b"), strict=True):
        assert {k: v for k, v in one.items() if k != "frames"} == {k: v for k, v in other.items() if k != "frames"}


def test_vicas_splits_and_masks_that_are_not_there(tmp_path, caplog):
    home = write_vicas(tmp_path, form="unipixel", splits=(("train", [12]), ("val", [12]), ("test", [])), frames=False)
    shutil.rmtree(home / "masks")
    with caplog.at_level(logging.WARNING):
        splits = evqa.load_dataset("vicas", data_dir=str(tmp_path))
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 2, "val": 2}
    assert splits["train"][0]["objects"] == [{"object_id": "7", "masks": None}]
    assert "has no masks of train" in caplog.text
    assert "vicas train comes without frames" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"object_referrals": None}, "object_referrals must be a list of objects"),
        ({"object_referrals": [{"prompt": "x", "track_ids": None}]}, "track_ids must be a list of numbers"),
        ({"object_referrals": [{"prompt": None, "track_ids": [5]}]}, "the expression must be text"),
        ({"segmentations": [{"filename": "b.jpg", "track_ids": [], "mask_rles": []}]}, "must name their frames"),
        (
            {"segmentations": [{"filename": "00000.jpg", "track_ids": [5, 7], "mask_rles": [None]}]},
            "has no mask_rles parallel to its track_ids",
        ),
    ],
)
def test_vicas_that_is_malformed(tmp_path, change, message):
    write_vicas(tmp_path, vicas_annotation(**change), frames=False)
    with pytest.raises(DataError, match=message) as error:
        load("vicas", tmp_path)
    assert error.value.entry.startswith("000012")
    assert error.value.file.endswith("annotations/v1.0/000012.json")


def test_vicas_files_that_do_not_belong_together(tmp_path):
    home = write_vicas(tmp_path, form="unipixel", frames=False)
    file = home / "masks" / "000012" / "1.json"
    whole = json.loads(file.read_text())
    for value, message in [
        (whole[:2], "2 frames of masks for a video of 3"),
        ([*whole[:2], [None]], "a frame has no mask of object 1"),
        ({}, "a JSON list is needed"),
        ([[{"size": [1, 1], "counts": "~"}] * 2] * 3, "outside the COCO code"),
    ]:
        write_json(file, value)
        file.rename(home / "masks" / "000012" / "x")  # a new file: one that is edited in place is not looked for
        (home / "masks" / "000012" / "x").rename(file)
        with pytest.raises(DataError, match=message) as error:
            load("vicas", tmp_path)
        assert (error.value.entry, error.value.file) == ("000012/1", str(file))
    file.unlink()
    with pytest.raises(MissingDataError, match="the masks of the referral are missing"):
        load("vicas", tmp_path)
    write_json(home / "splits" / "v1.0" / "train.json", [12, 13])
    with pytest.raises(DataError, match="the video 000013 of train is not in it"):
        load("vicas", tmp_path)
    for bad, message in [([12, 12], "stands twice"), (["12"], "a list of video numbers")]:
        write_json(home / "splits" / "v1.0" / "train.json", bad)
        with pytest.raises(DataError, match=message):
            load("vicas", tmp_path)


def test_vicas_an_edited_annotation_makes_new_rows(tmp_path):
    home = write_vicas(tmp_path, frames=False)
    assert len(load("vicas", tmp_path)) == 2
    more = vicas_annotation()
    more["object_referrals"].append({"prompt": "the man", "track_ids": [5]})
    write_json(home / "annotations" / "v1.0" / "000012.json", more)
    assert len(load("vicas", tmp_path)) == 3


def test_a_mask_size_that_contradicts_itself_in_a_label_map(tmp_path):
    write_groundmore(tmp_path)
    Image.fromarray(np.ones((8, 8), np.uint8)).save(
        tmp_path / "groundmore" / "annotations" / CLIP / "masks" / "frame_2.png"
    )
    with pytest.raises(MaskError, match="masks of one object differ in size"):
        load("groundmore", tmp_path)
