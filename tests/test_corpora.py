"""ST-Evidence from published files: layouts, typed rows, errors that name entry and file, cache, streaming."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tarfile
from pathlib import Path

import pytest
from make_data import FRAMES, HEIGHT, ROWS, WIDTH, box, write_csv, write_gen, write_mcq
from PIL import Image

import evqa
from evqa import masks
from evqa.errors import DataError, EvqaError, MaskError, MissingDataError, VideoError
from evqa.types import features


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Each test builds into a cache of its own."""
    import datasets

    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(folder))
    return folder


def gen(root, **options):
    return evqa.load_dataset("st_evidence", "gen", data_dir=str(root), split="test", **{"probe": False, **options})


def write_clips(home: Path, names=("clip1", "clip2")) -> None:
    pytest.importorskip("av")
    from evqa.video import write_clip

    (home / "videos_6fps").mkdir(parents=True, exist_ok=True)
    import numpy as np

    for name in names:
        frames = np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
        write_clip(home / "videos_6fps" / f"{name}.mp4", frames, 6.0)


def pack(folder: Path, archive: Path, name: str | None = None) -> None:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname=name or folder.name)
    shutil.rmtree(folder)


# ------------------------------------------------------------------------------------------------ gen
def test_gen_rows_are_typed_and_complete(tmp_path):
    home = write_gen(tmp_path)
    write_clips(home)
    rows = gen(tmp_path, probe=True)
    assert rows.features == features("gen")
    row = rows[1]
    assert (row["entry_id"], row["video_id"], row["answer"], row["answer_index"]) == ("clip1_1", "clip1", "late", 1)
    assert row["segments"] == [[0.5, 1.0], [1.5, 2.0]]
    assert (row["fps"], row["num_frames"], row["duration"]) == (6.0, FRAMES, 2.0)
    assert (row["height"], row["width"]) == (HEIGHT, WIDTH)
    assert row["video"] == {"bytes": None, "path": str(home / "videos_6fps" / "clip1.mp4")}
    assert [m["frame"] for m in row["masks"]] == list(range(FRAMES))
    assert row["masks"][3]["time"] == 0.5
    assert (masks.decode(row["masks"][3]["rle"]) == box(7, 8)).all()


@pytest.mark.parametrize("where", ["", "st_evidence_gen", "copy"])
def test_layouts(tmp_path, where):
    home = write_gen(tmp_path / "release")
    root = tmp_path / "release" / where
    if where == "copy":  # the original scripts' own folder, with its other name for the masks
        root = tmp_path / "copy"
        shutil.copytree(home, root / "benchmark" / "st_evidence_gen" / "data")
        place = root / "benchmark" / "st_evidence_gen" / "data"
        (place / "masks").rename(place / "mask_annos_latest_img")
    assert len(gen(root)[0]["masks"]) == FRAMES


@pytest.mark.parametrize(
    "columns",
    [
        {"candidates": "options", "segment": "temporal_evidence", "video_id": "video"},
        {"segment": "segments"},
    ],
)
def test_both_spellings_of_columns(tmp_path, columns):
    write_gen(tmp_path, columns=columns)
    assert gen(tmp_path)[0]["candidates"] == ["a box", "a ball"]


def test_packed_archives(tmp_path, cache):
    home = write_gen(tmp_path)
    write_clips(home)
    pack(home / "masks", home / "masks.tar.gz", "masks_all_clevrer_gdino_refined")  # packed under another name
    pack(home / "videos_6fps", home / "videos_6fps.tar.gz")
    before = sorted(home.iterdir())
    rows = gen(tmp_path, probe=True)
    assert len(rows[2]["masks"]) == FRAMES
    assert Path(rows[0]["video"]["path"]).is_file()
    assert sorted(home.iterdir()) == before  # the data folder is not written to
    unpacked = list((cache / "evqa_unpacked" / "st_evidence").glob("*-*"))
    assert len([p for p in unpacked if p.is_dir()]) == 2
    assert not list((cache / "evqa_unpacked").rglob("*.incomplete"))


def test_text_only_data_loads_with_a_warning(tmp_path, caplog):
    write_gen(tmp_path, masks=False)
    rows = gen(tmp_path)
    assert rows[0]["video"] is None
    assert rows[0]["masks"] is None
    assert "without clips" in caplog.text
    assert "without masks" in caplog.text


def test_one_entry_without_masks_is_not_black(tmp_path):
    home = write_gen(tmp_path)
    shutil.rmtree(home / "masks" / "clip1_1")
    rows = gen(tmp_path)
    assert rows[1]["masks"] is None
    assert len(rows[0]["masks"]) == FRAMES
    assert gen(tmp_path, masks=False)[0]["masks"] is None


def test_further_columns_are_kept(tmp_path):
    home = write_gen(tmp_path)
    write_csv(home / "st_evidence_gen.csv", ROWS, source="STAR", note="ü, x")
    assert json.loads(gen(tmp_path)[0]["metadata"]) == {"source": "STAR", "note": "ü, x"}


# ------------------------------------------------------------------------------------- finding clips
def test_clips_by_name_and_one_level_down(tmp_path):
    home = write_gen(tmp_path)
    write_clips(home)
    (home / "videos_6fps" / "sub").mkdir()
    (home / "videos_6fps" / "clip2.mp4").rename(home / "videos_6fps" / "sub" / "clip2.mp4")
    assert gen(tmp_path)[2]["video"]["path"].endswith("sub/clip2.mp4")


def test_missing_clip_says_what_was_tried(tmp_path):
    home = write_gen(tmp_path)
    write_clips(home, ["clip1"])
    with pytest.raises(MissingDataError, match=r"clip2.mp4.*looked for .*videos_6fps/clip2.mp4.*clip2_0") as caught:
        gen(tmp_path)
    assert caught.value.entry == "clip2_0"


def test_two_clips_of_one_name_are_an_error(tmp_path):
    home = write_gen(tmp_path)
    write_clips(home, ["clip1"])
    for sub in ("a", "b"):
        (home / "videos_6fps" / sub).mkdir()
        shutil.copy(home / "videos_6fps" / "clip1.mp4", home / "videos_6fps" / sub / "clip2.mp4")
    with pytest.raises(DataError, match=r"two files fit.*a/clip2.mp4.*b/clip2.mp4"):
        gen(tmp_path)


def test_broken_clip_names_entry_and_file(tmp_path):
    home = write_gen(tmp_path)
    write_clips(home)
    (home / "videos_6fps" / "clip2.mp4").write_bytes(b"")
    with pytest.raises(VideoError, match=r"clip2_0.*clip2.mp4"):
        gen(tmp_path, probe=True)
    assert len(gen(tmp_path, probe=True, on_error="skip")) == 2


def test_paths_never_lead_out_of_the_data(tmp_path):
    home = write_gen(tmp_path / "data")
    write_clips(home)
    shutil.copy(home / "videos_6fps" / "clip1.mp4", tmp_path / "private.mp4")
    for path in (str(tmp_path / "private.mp4"), "../../private.mp4"):
        break_row(home, video_path=path, video_id="clip7")
        with pytest.raises(MissingDataError, match="clip1_1"):
            gen(tmp_path / "data")


# --------------------------------------------------------------------------------------------- faults
def break_row(home, **cells):
    """Replace cells of the second row."""
    import csv

    path = home / "st_evidence_gen.csv"
    with open(path, newline="") as handle:
        rows = list(csv.DictReader(handle))
    rows[1].update(cells)
    with open(path, "w", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"candidates": "['a', "}, "candidates is not a Python literal"),
        ({"candidates": "[]"}, "must be a list of options"),
        ({"candidates": "{'a': 1}"}, "must be a list of options"),
        ({"candidates": "__import__('os').system('touch hacked')"}, "not a Python literal"),
        ({"candidates": "[" * 5000}, "not a Python literal"),
        ({"candidates": "9" * 300_000}, "no honest cell"),
        ({"candidates": "(lambda: 1)()"}, "not a Python literal"),
        ({"segment": "[[1, 'x']]"}, "malformed segment"),
        ({"segment": "[[5, 1]]"}, "ends before it starts"),
        ({"segment": "[[0, 1e999]]"}, "not finite"),
        ({"entry_id": "clip1_0"}, "stands twice"),
        ({"entry_id": " "}, "no entry_id"),
    ],
)
def test_unreadable_rows_raise_or_are_skipped_and_listed(tmp_path, caplog, cells, message):
    home = write_gen(tmp_path)
    break_row(home, **cells)
    with pytest.raises(EvqaError, match=message) as caught:
        gen(tmp_path)
    assert "st_evidence_gen.csv" in str(caught.value)
    assert "line 3" in str(caught.value)
    assert not Path("hacked").exists()
    rows = gen(tmp_path, on_error="skip")
    assert rows["entry_id"] == ["clip1_0", "clip2_0"]
    assert "1 rows could not be read" in caplog.text
    caplog.clear()
    gen(tmp_path, on_error="skip")  # from the cache: still told
    assert "1 rows could not be read" in caplog.text
    with pytest.raises(EvqaError, match=message):
        list(gen(tmp_path, streaming=True))


def test_rows_with_too_few_cells(tmp_path):
    home = write_gen(tmp_path)
    with open(home / "st_evidence_gen.csv", "a") as handle:
        handle.write("clip9_0,clip9\n")
    with pytest.raises(DataError, match="2 cells where the header has 7"):
        gen(tmp_path)
    assert len(gen(tmp_path, on_error="skip")) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"), (b"entry_id,question\n", "no column 'candidates' or 'options'"), (b"\xff\xfe\x00", "not readable as CSV"),
        (b"entry_id,video_id,question,candidates,answer\n", "no rows"),
    ],
)  # fmt: skip
def test_unusable_tables(tmp_path, content, message):
    home = write_gen(tmp_path)
    (home / "st_evidence_gen.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        gen(tmp_path)


def test_missing_folders(tmp_path):
    with pytest.raises(MissingDataError, match="data_dir is not a folder"):
        gen(tmp_path / "nowhere")
    with pytest.raises(
        MissingDataError, match=r"st_evidence_gen.csv not found; looked for .*st_evidence_gen/st_evidence_gen.csv"
    ):
        gen(tmp_path)
    with pytest.raises(DataError, match="no corpus 'nonsense'"):
        evqa.load_dataset("nonsense")
    with pytest.raises(ValueError, match="on_error"):
        gen(tmp_path, on_error="ignore")


@pytest.mark.parametrize("fault", ["empty", "size", "name", "twice"])
def test_unreadable_masks(tmp_path, fault):
    home = write_gen(tmp_path)
    folder = home / "masks" / "clip1_1"
    if fault == "empty":
        (folder / "00003.png").write_bytes(b"")
    elif fault == "size":
        Image.new("L", (9, 9)).save(folder / "00003.png")
    elif fault == "name":
        (folder / "00003.png").rename(folder / "thumbnail.png")
    else:
        shutil.copy(folder / "00003.png", folder / "3.png")
    with pytest.raises(MaskError, match=r"clip1_1"):
        gen(tmp_path)
    assert len(gen(tmp_path, on_error="skip")) == 2


# -------------------------------------------------------------------------------- cache, streaming
def test_editing_the_table_refreshes_the_cache(tmp_path):
    home = write_gen(tmp_path)
    assert len(gen(tmp_path)) == 3
    write_csv(home / "st_evidence_gen.csv", [*ROWS, ("clip9_0", "clip9", "q", ["x", "y"], "x", [[0, 1]])])
    assert len(gen(tmp_path)) == 4
    info = os.stat(home / "st_evidence_gen.csv")
    text = (home / "st_evidence_gen.csv").read_text()
    (home / "st_evidence_gen.csv").write_text(text.replace("clip9_0", "clip8_0"))
    os.utime(home / "st_evidence_gen.csv", ns=(info.st_atime_ns, info.st_mtime_ns + 1))  # same size, a moment later
    assert gen(tmp_path)["entry_id"][-1] == "clip8_0"


def test_media_that_come_later_are_seen(tmp_path):
    home = write_gen(tmp_path, masks=False)
    assert gen(tmp_path)[0]["masks"] is None
    write_gen(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole" / "st_evidence_gen" / "masks", home / "masks")
    assert len(gen(tmp_path)[0]["masks"]) == FRAMES
    assert gen(tmp_path)[0]["video"] is None
    write_clips(home)
    assert gen(tmp_path)[0]["video"]["path"].endswith("clip1.mp4")


def test_streaming_and_processes_give_the_same_rows(tmp_path):
    rows = [(f"c_{i}", "c", f"q{i}", ["x", "y"], "y", [[0, i + 1]]) for i in range(150)]
    write_gen(tmp_path, rows, masks=False)
    plain = gen(tmp_path)
    streamed = gen(tmp_path, streaming=True)
    assert streamed.num_shards == 3
    assert list(streamed) == list(plain)
    shared_out = evqa.load_dataset(
        "st_evidence", "gen", data_dir=str(tmp_path), split="test", probe=False, num_proc=2, masks=False
    )
    assert list(shared_out) == list(plain)
    assert next(iter(gen(tmp_path, streaming=True).skip(140)))["entry_id"] == "c_140"
    sliced = evqa.load_dataset("st_evidence", "gen", data_dir=str(tmp_path), split="test[:5]", probe=False)
    assert len(sliced) == 5


def test_skipping_in_several_processes_is_counted(tmp_path, caplog):
    rows = [(f"c_{i}", "c", "q", ["x"] if i % 10 else [], "x", [[0, 1]]) for i in range(200)]
    write_gen(tmp_path, rows, masks=False)
    assert len(gen(tmp_path, on_error="skip", num_proc=2)) == 180
    assert "20 rows could not be read" in caplog.text


def test_rows_go_to_parquet_and_back(tmp_path):
    write_gen(tmp_path)
    rows = gen(tmp_path)
    rows.to_parquet(tmp_path / "x.parquet")
    from datasets import Dataset

    again = Dataset.from_parquet(str(tmp_path / "x.parquet"))
    assert again.features == rows.features
    assert again[1] == rows[1]


# ------------------------------------------------------------------------------------------------ mcq
def mcq(root, **options):
    return evqa.load_dataset("st_evidence", "mcq", data_dir=str(root), split="test", **{"probe": False, **options})


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("columns", [None, {"video_id": "video", "candidates": "options"}])
def test_mcq_rows(tmp_path, packed, columns):
    home = write_mcq(tmp_path, columns=columns)
    if packed:
        pack(home / "options", home / "options.tar.gz")
    rows = mcq(tmp_path)
    assert rows.features == features("mcq")
    row = rows[0]
    assert (row["temporal_answer"], row["spatial_answer"]) == (1, 2)
    assert row["temporal_options"][1] == row["segments"] == [[0.0, 1.0]]
    assert [image.size for image in row["spatial_options"]] == [(WIDTH, HEIGHT)] * 4
    reds = [image.getpixel((WIDTH - 1, HEIGHT - 1))[0] for image in row["spatial_options"]]
    assert reds == sorted(reds)  # in the order of the options


def edit_json(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_older_form_of_region_options(tmp_path):
    home = write_mcq(tmp_path)

    def older(value):
        entry = value.pop("clip1_0")
        paths = [entry[key] for key in entry["options"]]
        value["17"] = {"entry_id": "clip1_0", "mcq_options": paths, "correct_answer": 2}

    edit_json(home / "mask_options.json", older)
    assert mcq(tmp_path)[0]["spatial_answer"] == 2


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("mask_options.json", lambda v: v["clip1_1"].pop("answer"), "answer must be 0 to 3, got None"),
        ("mask_options.json", lambda v: v["clip1_1"].update(answer=4), "answer must be 0 to 3, got 4"),
        ("mask_options.json", lambda v: v["clip1_1"]["options"].pop(), "4 images"),
        ("mask_options.json", lambda v: v.pop("clip1_1"), "no options for the entry"),
        ("mask_options.json", lambda v: v["clip1_1"].update(gt="../../secret.jpg"), "outside the data"),
        ("mask_options.json", lambda v: v["clip1_1"].update(gt="options/none.jpg"), "is not there"),
        ("temp_options.json", lambda v: v.pop("clip1_1"), "has nothing for the entry"),
        ("temp_options.json", lambda v: v["clip1_1"].update(correct_answer="E"), "A to D, got 'E'"),
        ("temp_options.json", lambda v: v["clip1_1"]["time_evidence_options"].pop(), "4 options"),
        (
            "temp_options.json",
            lambda v: v["clip1_1"]["time_evidence_options"].__setitem__(0, [[2, 1]]),
            "before it starts",
        ),
    ],
)
def test_mcq_faults_never_shift_letters(tmp_path, file, change, message):
    home = write_mcq(tmp_path)
    edit_json(home / file, change)
    with pytest.raises(DataError, match=rf"{message}.*clip1_1"):
        mcq(tmp_path)
    assert mcq(tmp_path, on_error="skip")["entry_id"] == ["clip1_0", "clip2_0"]


def test_missing_option_image(tmp_path):
    home = write_mcq(tmp_path)
    (home / "options" / "clip2_0" / "d2.jpg").unlink()
    with pytest.raises(MissingDataError, match=r"d2.jpg.*looked for.*clip2_0"):
        mcq(tmp_path)


def test_truncated_json(tmp_path):
    home = write_mcq(tmp_path)
    text = (home / "temp_options.json").read_text()
    (home / "temp_options.json").write_text(text[: len(text) // 2])
    with pytest.raises(DataError, match=r"cut off.*temp_options.json"):
        mcq(tmp_path)


# ------------------------------------------------------------------------------------------- instruct
def write_instruct_mask(root, entries=3, *, table=True, pickled=True, split=None):
    home = root / "gen_mask"
    (home / "masks").mkdir(parents=True)
    rows, meta = [], []
    for i in range(entries):
        entry, video = f"star_{i}", f"STAR/clip{i}"
        polygon = [[10, 10], [30, 10], [30, 30], [10, 30]]
        (home / "masks" / f"{entry}.json").write_text(
            json.dumps(
                {
                    "entry_id": entry, "video_path": f"{video}.mp4", "fps": 6.0, "width": WIDTH, "height": HEIGHT,
                    "evidence_objects": [
                        {
                            "ref_expression": "the person in blue",
                            "prompts": [{"timestamp": 0.5, "bbox_norm": [250, 500, 500, 1000], "frame": 3, "confidence": 0.9}],
                            "masks": [{"frame": 3, "mask": {"exterior": polygon, "holes": [[[15, 15], [20, 15], [20, 20], [15, 20]]]}}],
                        },
                        {"ref_expression": "the cup", "prompts": [], "masks": [{"frame": 4, "mask": {"exterior": polygon, "holes": []}}]},
                    ],
                }
            )
        )  # fmt: skip
        frames = home / "video_frames_6fps" / video
        frames.mkdir(parents=True)
        for t in range(8):
            (frames / f"frame_{t:04d}.jpg").touch()  # listing must not look inside
        rows.append((entry, video.split("/")[1], "what", ["the cup", "the bag"], "the cup", [[0.5, 1.0]]))
        meta.append(
            {
                "entry_id": entry, "video_name": video, "total_frames": 8, "mask_rle_path": f"/author/rle/{entry}.json",
                "question_with_options": "what\nOptions:\n(A) the cup\n(B) the bag",
                "answer_with_evidence": "Answer: A. Temporal Evidence: [[0.5, 1.0]]. Spatial Evidence:",
            }
        )  # fmt: skip
    if table:
        extra = {"split": split} if split else {}
        write_csv(home / "st_evidence.csv", rows, {"segment": "temporal_evidence"}, **extra)
        text = (home / "st_evidence.csv").read_text().replace("videos_6fps/", "STAR/")
        (home / "st_evidence.csv").write_text(text)
    if pickled:
        (home / "st_evidence_meta.pkl").write_bytes(pickle.dumps(meta))
    return home


def instruct(root, config="instruct_mask", **options):
    return evqa.load_dataset("st_evidence", config, data_dir=str(root), **options)


@pytest.mark.parametrize(("table", "pickled"), [(True, True), (True, False), (False, True)])
def test_instruct_mask(tmp_path, table, pickled):
    home = write_instruct_mask(tmp_path, table=table, pickled=pickled)
    rows = instruct(tmp_path)["train"]
    assert rows.features == features("instruct")
    row = rows[1]
    assert (row["question"], row["candidates"], row["answer"], row["answer_index"]) == (
        "what",
        ["the cup", "the bag"],
        "the cup",
        0,
    )
    assert row["segments"] == [[0.5, 1.0]]
    person, cup = row["objects"]
    assert (person["expression"], cup["expression"]) == ("the person in blue", "the cup")
    assert person["boxes"][0] == {"time": 0.5, "frame": 3, "box": [16.0, 24.0, 32.0, 48.0]}
    assert (person["masks"][0]["frame"], person["masks"][0]["time"]) == (3, 0.5)
    assert masks.area(person["masks"][0]["rle"]) == 400 - 25
    assert masks.area(cup["masks"][0]["rle"]) == 400
    assert row["frames"]["folder"] == str(home / "video_frames_6fps" / "STAR" / "clip1")
    assert row["frames"]["names"][7] == "frame_0007.jpg"
    assert row["frames"]["times"][3] == 0.5


def test_instruct_mask_without_polygons_takes_the_merged_masks(tmp_path):
    home = write_instruct_mask(tmp_path, 1)
    edit_json(home / "masks" / "star_0.json", lambda v: [o.pop("masks") for o in v["evidence_objects"]])
    (home / "rle").mkdir()
    rle = masks.to_json(masks.encode(box(3, 3)))
    (home / "rle" / "star_0.json").write_text(
        json.dumps([[[None], [rle], [rle, masks.to_json(masks.encode(box(30, 3)))]]])
    )
    objects = instruct(tmp_path)["train"][0]["objects"]
    assert [len(item["masks"]) for item in objects] == [0, 0, 2]
    assert [m["frame"] for m in objects[2]["masks"]] == [1, 2]
    assert masks.area(objects[2]["masks"][1]["rle"]) == 2 * masks.area(rle)


def test_instruct_mask_splits_are_honoured(tmp_path):
    write_instruct_mask(tmp_path, 2, split="val")
    assert list(instruct(tmp_path)) == ["val"]
    with pytest.raises(ValueError, match="train"):
        instruct(tmp_path, split="train")


def test_instruct_mask_names_missing_frames(tmp_path):
    home = write_instruct_mask(tmp_path)
    (home / "video_frames_6fps" / "STAR" / "clip1" / "frame_0005.jpg").unlink()
    with pytest.raises(MissingDataError, match=r"1 of 8 frames are missing, frame_0005.jpg first.*star_1"):
        instruct(tmp_path)
    (home / "masks" / "star_2.json").unlink()
    assert instruct(tmp_path, on_error="skip", split="train")["entry_id"] == ["star_0"]


def test_the_published_pickle_runs_nothing(tmp_path):
    home = write_instruct_mask(tmp_path, 1)

    class Evil:
        def __reduce__(self):
            return os.system, ("touch " + str(tmp_path / "hacked"),)

    (home / "st_evidence_meta.pkl").write_bytes(pickle.dumps([{"entry_id": "a", "x": Evil()}]))
    with pytest.raises(DataError, match=r"refused: the pickle asks for .*system.*st_evidence_meta.pkl"):
        instruct(tmp_path)
    assert not (tmp_path / "hacked").exists()


def write_vicas(home, frames=True):
    annotations = home / "annotations" / "v1.0"
    annotations.mkdir(parents=True)
    first, second = (masks.to_json(masks.encode(box(x, 4))) for x in (4, 30))
    (annotations / "010375.json").write_text(
        json.dumps(
            {
                "video_id": 10375, "image_size": [HEIGHT, WIDTH],
                "object_referrals": [{"prompt": "the boy", "track_ids": [1]}, {"prompt": "both", "track_ids": [1, 2]}],
                "segmentations": [
                    {"filename": "00000.jpg", "is_gt": True, "track_ids": [2, 1], "mask_rles": [second, first]},
                    {"filename": "00030.jpg", "is_gt": True, "track_ids": [2], "mask_rles": [second]},
                ],
            }
        )
    )  # fmt: skip
    if frames:
        (home / "video_frames" / "010375").mkdir(parents=True)
        for name in ("00000.jpg", "00030.jpg"):
            (home / "video_frames" / "010375" / name).touch()


def write_instruct_qa(root):
    import csv

    home = root / "gen_qa" / "vicas"
    home.mkdir(parents=True)
    with open(home / "st_evidence_vicas.csv", "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(
            "entry_id video_id video_path question answer candidates mask_evidence source split qa_source temporal_evidence".split()
        )
        for i, split in enumerate(["train", "val", "train"]):
            writer.writerow([f"10375_{i}", 10375, "010375_video.mp4", "who falls", "the boy", "['the boy', 'a dog']", "[1, 2]",
                             "vicas", split, "gemini", "[[1.0, 2.0]]"])  # fmt: skip
    return home


def test_instruct_qa(tmp_path):
    home = write_instruct_qa(tmp_path)
    write_vicas(home)
    rows = instruct(tmp_path, "instruct_qa")
    assert {name: len(split) for name, split in rows.items()} == {"train": 2, "val": 1}
    row = rows["val"][0]
    boy, other = row["objects"]
    assert (boy["object_id"], boy["expression"], other["expression"]) == ("1", "the boy", None)
    assert [m["frame"] for m in boy["masks"]] == [0]  # absent from the second frame
    assert (masks.decode(boy["masks"][0]["rle"]) == box(4, 4)).all()  # by the frame's own order of tracks
    assert [m["frame"] for m in other["masks"]] == [0, 1]
    assert row["frames"]["names"] == ["00000.jpg", "00030.jpg"]
    assert json.loads(row["metadata"]) == {"source": "vicas", "qa_source": "gemini"}


def test_instruct_qa_says_what_it_needs(tmp_path):
    write_instruct_qa(tmp_path)
    with pytest.raises(MissingDataError, match=r"annotations/v1.0/<video id, 6 digits>.json.*Looked for.*gen_qa/vicas"):
        instruct(tmp_path, "instruct_qa")
    write_vicas(tmp_path / "elsewhere")
    assert len(instruct(tmp_path, "instruct_qa", vicas_dir=str(tmp_path / "elsewhere"), split="train")) == 2
    (tmp_path / "elsewhere" / "video_frames" / "010375" / "00030.jpg").unlink()
    with pytest.raises(MissingDataError, match="1 of 2 ViCaS frames are missing, 00030.jpg"):
        instruct(tmp_path, "instruct_qa", vicas_dir=str(tmp_path / "elsewhere"), download_mode="force_redownload")


def test_twenty_thousand_rows_are_listed_without_touching_frames(tmp_path, monkeypatch):
    from evqa.corpora.st_evidence import StEvidence

    home = tmp_path / "gen_mask"
    (home / "masks").mkdir(parents=True)
    (home / "video_frames_6fps").mkdir()
    rows = [(f"r_{i}", f"v{i}", "q", ["a", "b"], "a", [[0, 1]]) for i in range(20_000)]
    write_csv(home / "st_evidence.csv", rows, {"segment": "temporal_evidence"})
    builder = StEvidence(config_name="instruct_mask", data_dir=str(tmp_path))
    touched = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: touched.append(path) or real(path))
    monkeypatch.setattr(os, "listdir", lambda path: touched.append(path))
    listed = builder.list_rows(tmp_path, builder.annotation_files(tmp_path))
    assert len(listed["train"]) == 20_000
    assert not [path for path in touched if "video_frames" in str(path)]


# -------------------------------------------------------------------------------------------- sample
def test_the_sample_needs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = evqa.load_dataset("evqa/st_evidence", "sample", split="test")
    assert rows.features == features("mcq")
    assert len(rows) >= 24
    assert len(set(rows["video_id"])) >= 12
    for row in rows.select_columns(["video", "masks", "answer_index", "answer", "candidates"]):
        assert Path(row["video"]["path"]).is_file()
        assert row["masks"]
        assert row["candidates"][row["answer_index"]] == row["answer"]


# ---------------------------------------------------------------------------------------- real data
def test_real_questions(shared):
    rows = gen(shared / "data" / "st_evidence_text_real")
    assert len(rows) == 300
    assert rows[3]["segments"] == [[0.0, 1.6], [7.8, 9.2], [12.6, 13.8]]


def test_real_pixels(shared):
    pytest.importorskip("av")
    data = shared / "data" / "st_evidence_mini"
    rows = gen(data, probe=True)
    assert rows["num_frames"] == [40, 40, 16, 16]
    assert rows["fps"] == [6.0] * 4
    truth = sorted((data / "st_evidence_gen" / "masks" / "judo_1").glob("*.png"))
    assert [m["frame"] for m in rows[3]["masks"]] == [int(path.stem) for path in truth]
    choices = mcq(data)
    assert choices["spatial_answer"][0] == 3
    assert choices["temporal_answer"][0] == 3
