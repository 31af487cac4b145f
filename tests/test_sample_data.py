"""The embedded sample benchmark: everything that its files promise, checked on the files themselves."""

import collections
import gzip
import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evqa import masks as rle
from evqa import segments as seg

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "evqa" / "corpora" / "sample"
GENERATOR = ROOT / "dataset_scripts" / "st_evidence" / "sample"

ENTRIES = json.loads((SAMPLE / "entries.json").read_text(encoding="utf-8"))
MASKS = json.loads(gzip.decompress((SAMPLE / "masks.json.gz").read_bytes()))
OBJECTS = json.loads(gzip.decompress((SAMPLE / "objects.json.gz").read_bytes()))
IDS = [entry["entry_id"] for entry in ENTRIES]
VIDEOS = sorted({entry["video_id"] for entry in ENTRIES})
TYPES = {"what", "which", "when", "how_many", "before_after"}
MIN_PIXELS = 12

each_entry = pytest.mark.parametrize("entry", ENTRIES, ids=IDS)


def on_grid(seconds):
    return abs(seconds * 6 - round(seconds * 6)) < 0.01


def iou(a, b):
    both = seg.measure(seg.intersection(a, b))
    return both / (seg.measure(a) + seg.measure(b) - both)


def frames_of(segments):
    return {f for start, end in segments for f in range(round(start * 6), round(end * 6))}


# ------------------------------------------------------------------------------------- the whole
def test_fits_the_wheel():
    size = sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file())
    assert size <= 2_600_000
    assert (SAMPLE / "objects.json.gz").stat().st_size <= 500_000


def test_holds_what_is_listed_and_nothing_else():
    listed = {"README.md", "entries.json", "masks.json.gz", "objects.json.gz"}
    listed |= {entry["video"] for entry in ENTRIES}
    listed |= {path for entry in ENTRIES for path in entry["spatial_options"]}
    there = {str(path.relative_to(SAMPLE).as_posix()) for path in SAMPLE.rglob("*") if path.is_file()}
    assert there - {name for name in there if name.endswith((".py", ".pyc"))} == listed


def test_counts():
    assert len(VIDEOS) >= 14
    assert len(ENTRIES) >= 32
    assert len(set(IDS)) == len(IDS)
    kinds = collections.Counter(entry["question_type"] for entry in ENTRIES)
    assert set(kinds) == TYPES
    assert min(kinds.values()) >= 5
    assert sum(len(entry["segments"]) > 1 for entry in ENTRIES) >= 6


def test_the_wording_gives_nothing_away():
    # Each question is asked of several clips and has a different answer in each.
    asked = collections.defaultdict(list)
    for entry in ENTRIES:
        asked[entry["question"]].append((entry["video_id"], entry["answer"]))
    for question, found in asked.items():
        assert len({video for video, _ in found}) >= 2, question
        assert len({answer for _, answer in found}) == len(found), question


def test_letters_are_balanced():
    answers = collections.Counter(entry["candidates"].index(entry["answer"]) for entry in ENTRIES)
    assert len(answers) == 5
    assert max(answers.values()) - min(answers.values()) <= 3
    for key in ("temporal_answer", "spatial_answer"):
        letters = collections.Counter(entry[key] for entry in ENTRIES)
        assert sorted(letters) == [0, 1, 2, 3]
        assert max(letters.values()) - min(letters.values()) <= 1


def test_readme_states_origin_and_licence():
    text = (SAMPLE / "README.md").read_text(encoding="utf-8")
    assert "CC0-1.0" in text
    assert "make_sample.py --out evqa/corpora/sample" in text
    assert f"{len(VIDEOS)} short clips" in text
    assert f"{len(ENTRIES)} questions" in text


# ------------------------------------------------------------------------------------- an entry
@each_entry
def test_entry_is_complete(entry):
    assert entry["entry_id"].rpartition("_")[0] == entry["video_id"]
    assert entry["video"] == f"videos/{entry['video_id']}.mp4"
    assert entry["fps"] == 6.0
    assert 36 <= entry["num_frames"] <= 60
    assert math.isclose(entry["duration"], entry["num_frames"] / 6, abs_tol=1e-3)
    assert (entry["width"], entry["height"]) == (384, 216)
    assert entry["question"].endswith("?")


@each_entry
def test_candidates_hold_the_answer_once(entry):
    assert 2 <= len(entry["candidates"]) <= 5
    assert len(set(entry["candidates"])) == len(entry["candidates"])
    assert entry["candidates"].count(entry["answer"]) == 1
    assert all(isinstance(text, str) and 0 < len(text) <= 60 for text in entry["candidates"])


@each_entry
def test_segments_lie_in_the_clip(entry):
    for segments in [entry["segments"], *entry["temporal_options"]]:
        assert segments
        assert all(0 <= start < end <= entry["duration"] + 1e-3 for start, end in segments)
        assert all(a[1] < b[0] for a, b in itertools.pairwise(segments)), "sorted and disjoint"
        assert all(on_grid(bound) for segment in segments for bound in segment)


@each_entry
def test_temporal_options(entry):
    options, truth = entry["temporal_options"], entry["segments"]
    assert len(options) == 4
    assert options.count(truth) == 1
    assert options[entry["temporal_answer"]] == truth
    wrong = [option for option in options if option != truth]
    assert all(iou(option, truth) < 0.5 for option in wrong)
    assert len({json.dumps(option) for option in options}) == 4

    def lengths(option):
        return sorted(round((end - start) * 6) for start, end in option)

    assert all(lengths(option) == lengths(truth) for option in wrong), "length must not tell"


@each_entry
def test_spatial_options_are_four_images(entry):
    assert entry["spatial_options"] == [f"options/{entry['entry_id']}_{letter}.jpg" for letter in "abcd"]
    assert 0 <= entry["spatial_answer"] <= 3
    images = load_options(entry)
    for image in images:
        assert image.shape == (144, 256, 3)
    assert all(outline.sum() >= 40 for outline in outlines_of(images)), "every option has an outline that can be seen"


@each_entry
def test_the_true_region_is_the_evidence(entry):
    # The outline's bounding box is that of the evidence mask, in some frame of the segments; no other option's is.
    boxes = []
    for mask in MASKS[entry["entry_id"]]:
        if mask["frame"] in frames_of(entry["segments"]):
            boxes.append(box_of(rle.decode(mask["rle"])) * (256 / 384))
    outlines = outlines_of(load_options(entry))
    fits = [min(np.abs(box_of(outline) - box).max() for box in boxes) <= 7 for outline in outlines]
    assert fits == [i == entry["spatial_answer"] for i in range(4)]


def load_options(entry):
    images = []
    for path in entry["spatial_options"]:
        with Image.open(SAMPLE / path) as image:
            assert image.format == "JPEG"
            images.append(np.asarray(image.convert("RGB")))
    return images


def outlines_of(images):
    """The pixels of the red line in each of four copies of a frame: nothing in the scenes has its colour."""
    red = [(i.astype(int)[..., 0] - i[..., 1:].max(axis=-1) > 135) & (i[..., 1] < 64) for i in images]
    assert not np.logical_and.reduce(red).any()
    return red


def box_of(mask):
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=float)


# ---------------------------------------------------------------------------------------- masks
def test_every_entry_has_masks_and_every_clip_objects():
    assert sorted(MASKS) == sorted(IDS)
    assert sorted(OBJECTS) == VIDEOS


@each_entry
def test_masks_are_valid(entry):
    masks = MASKS[entry["entry_id"]]
    frames = [mask["frame"] for mask in masks]
    assert frames == sorted(set(frames))
    assert frames[0] >= 0
    assert frames[-1] < entry["num_frames"]
    for mask in masks:
        checked = rle.normalize(mask["rle"], entry=entry["entry_id"])
        assert checked["size"] == [entry["height"], entry["width"]]
        assert rle.area(checked) >= MIN_PIXELS
    for segment in entry["segments"]:
        assert frames_of([segment]) & set(frames), "a proving moment shows evidence"


@each_entry
def test_masks_are_the_union_of_the_evidence_objects(entry):
    objects = OBJECTS[entry["video_id"]]
    assert entry["evidence"]
    assert len(set(entry["evidence"])) == len(entry["evidence"])
    by_frame = collections.defaultdict(list)
    for name in entry["evidence"]:
        for mask in objects[name]:
            by_frame[mask["frame"]].append(mask["rle"])
    found = {mask["frame"]: rle.decode(mask["rle"]) for mask in MASKS[entry["entry_id"]]}
    assert set(by_frame) <= set(found)
    for frame, mask in found.items():
        united = np.zeros_like(mask)
        for part in by_frame[frame]:
            united |= rle.decode(part)
        # An object with fewer pixels than the threshold is not listed by itself, and still part of a union.
        assert not (united & ~mask).any()
        assert (mask & ~united).sum() < MIN_PIXELS * len(entry["evidence"])


@pytest.mark.parametrize("video_id", VIDEOS)
def test_objects_do_not_overlap(video_id):
    length = next(entry["num_frames"] for entry in ENTRIES if entry["video_id"] == video_id)
    owners = np.zeros((length, 216, 384), dtype=np.uint8)
    for masks in OBJECTS[video_id].values():
        for mask in masks:
            owners[mask["frame"]] += rle.decode(mask["rle"])
    assert owners.max() == 1, "a pixel shows one object"


# --------------------------------------------------------------------------------------- pixels
def decoded(video_id):
    av = pytest.importorskip("av")
    with av.open(str(SAMPLE / "videos" / f"{video_id}.mp4")) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("video_id", VIDEOS)
def test_clip_is_what_the_entries_say(video_id):
    av = pytest.importorskip("av")
    entry = next(entry for entry in ENTRIES if entry["video_id"] == video_id)
    with av.open(str(SAMPLE / entry["video"])) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert (stream.width, stream.height) == (384, 216)
        assert stream.average_rate == 6
        times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    assert np.allclose(times, np.arange(entry["num_frames"]) / 6)


@pytest.mark.parametrize("video_id", VIDEOS)
def test_clip_starts_playing_before_it_is_loaded(video_id):
    data = (SAMPLE / "videos" / f"{video_id}.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize(
    ("video_id", "name"),
    [
        ("street_morning", "the yellow taxi"),
        ("street_evening", "the orange bus"),
        ("reef_deep", "the pink fish"),
        ("reef_lagoon", "the turtle"),
        ("orchard_autumn", "the bird"),
        ("harbour_night", "the sailing boat"),
        ("gallery_sage", "the striped ball"),
        ("gallery_lilac", "the paper plane"),
        ("sky_violet", "the rocket"),
    ],
)
def test_masks_lie_on_the_moving_object(video_id, name):
    # What is in the mask differs from the empty scene, and what is around it does not.
    frames = decoded(video_id).astype(float)
    empty = np.median(frames, axis=0)
    seen = [mask for mask in OBJECTS[video_id][name] if rle.area(mask["rle"]) > 200]
    assert seen
    inside, around = [], []
    for mask in seen[:: max(1, len(seen) // 6)]:
        area = rle.decode(mask["rle"])
        change = np.abs(frames[mask["frame"]] - empty).mean(axis=-1)
        others = [m for n, ms in OBJECTS[video_id].items() if n != name for m in ms if m["frame"] == mask["frame"]]
        free = ~np.logical_or.reduce([rle.decode(m["rle"]) for m in others] + [area])
        ring = grown(area, 9) & ~grown(area, 3) & free
        ring[np.flatnonzero(area.any(axis=1))[-1] - 4 :] = False  # its shadow is no part of it, and below it
        inside.append(change[area].mean())
        around.append(change[ring].mean() if ring.any() else 0.0)
    assert min(inside) > 25
    assert np.mean(around) < 0.35 * np.mean(inside)


@pytest.mark.parametrize(
    ("video_id", "name", "colour"),
    [
        ("street_morning", "the blue car", (60, 140, 210)),
        ("orchard_summer", "the middle apple", (248, 195, 75)),
        ("cups_mint", "the cup that starts on the left", (235, 165, 110)),
        ("gallery_lilac", "the plain ball", (240, 135, 70)),
    ],
)
def test_a_named_colour_is_the_colour_in_the_mask(video_id, name, colour):
    frames = decoded(video_id).astype(float)
    mask = max(OBJECTS[video_id][name], key=lambda mask: rle.area(mask["rle"]))
    inside = frames[mask["frame"]][rle.decode(mask["rle"])].mean(axis=0)
    assert np.linalg.norm(inside - colour) < 60


def grown(mask, steps):
    for _ in range(steps):
        padded = np.pad(mask, 1)
        mask = padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return mask


# -------------------------------------------------------------------------------- the generator
@pytest.mark.skipif(not GENERATOR.is_dir(), reason="the generator is only in the source repository")
def test_the_generator_gives_the_same_files(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(GENERATOR / "make_sample.py"), "--out", str(tmp_path), "--no-media"]
    subprocess.run(command, check=True, env=environment, capture_output=True, timeout=600)
    for name in ("entries.json", "README.md"):
        assert (tmp_path / name).read_bytes() == (SAMPLE / name).read_bytes(), name
    for name in ("masks.json.gz", "objects.json.gz"):
        # Compressors may differ between builds of zlib; what they hold may not.
        assert gzip.decompress((tmp_path / name).read_bytes()) == gzip.decompress((SAMPLE / name).read_bytes()), name
        assert (SAMPLE / name).read_bytes()[4:8] == bytes(4), "no time stamp"
        text = gzip.decompress((SAMPLE / name).read_bytes()).decode("ascii")
        assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))


@pytest.fixture
def render(monkeypatch):
    """The generator's drawing module; its plain module names are taken out again afterwards."""
    if not GENERATOR.is_dir():
        pytest.skip("the generator is only in the source repository")
    monkeypatch.syspath_prepend(str(GENERATOR))
    before = set(sys.modules)
    import render as module

    # Training clips are drawn with fewer samples, by a setting of the module, which may be loaded already.
    monkeypatch.setattr(module, "SAMPLES", 4)
    monkeypatch.setattr(module, "STEP", module.GRID // 4)
    yield module
    for name in set(sys.modules) - before:
        if str(GENERATOR) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_coverage_is_the_winding_number(render):
    # Against the definition, sample by sample, for random polygons that cross themselves and leave the grid.
    rng = np.random.default_rng(0)
    height, width = 40, 56
    for number in range(40):
        rings = [rng.integers(-300, 1200, size=(rng.integers(3, 8), 2)) for _ in range(1 + number % 3)]
        expected = np.zeros((height, width), dtype=bool)
        for row in range(height):
            for column in range(width):
                x, y = 16 * column + 8, 16 * row + 8
                winding = 0
                for ring in rings:
                    for (x0, y0), (x1, y1) in zip(ring.tolist(), np.roll(ring, -1, axis=0).tolist(), strict=True):
                        side = (x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)
                        winding += (y0 <= y < y1 and side <= 0) - (y1 <= y < y0 and side >= 0)
                expected[row, column] = winding != 0
        found = render.coverage(rings, height, width)
        mask = np.zeros((height, width), dtype=bool)
        if found is not None:
            row, column, part = found
            mask[row : row + part.shape[0], column : column + part.shape[1]] = part
        assert (mask == expected).all()


def test_a_pixel_belongs_to_who_owns_more_than_half_of_it(render):
    frame = render.Frame(["a", "b"])
    pen = render.Pen(frame)
    pen.named("a").fill([[(10, 10), (20.5, 10), (20.5, 20), (10, 20)]], "#ff0000")
    pen.named("b").fill([[(15.25, 10), (18, 10), (18, 20), (15.25, 20)]], "#00ff00")
    seen = frame.visible()
    assert seen["b"][10:20].any(axis=0).nonzero()[0].tolist() == [15, 16, 17]
    # Of column 20 exactly half is covered, which is not more than half; column 15 went to b.
    assert seen["a"][10:20].any(axis=0).nonzero()[0].tolist() == [10, 11, 12, 13, 14, 18, 19]
    area, owners = frame.covered_by("a")
    assert area == 105
    assert owners == {"a": 105 - 27.5, "b": 27.5}
    picture = np.asarray(frame.image())
    assert picture[12, 12].tolist() == [255, 0, 0]
    assert picture.shape == (216, 384, 3)
