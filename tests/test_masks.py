"""Masks: the RLE codec against pycocotools, images in and out, malformed input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from make_data import box
from PIL import Image
from pycocotools import mask as coco

from evqa import masks
from evqa.errors import MaskError

arrays = nps.arrays(np.bool_, nps.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))


@given(arrays)
@settings(max_examples=300, derandomize=True)
def test_codec_agrees_with_pycocotools(mask):
    rle = masks.encode(mask)
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert rle == {"size": list(mask.shape), "counts": theirs["counts"]}
    assert (masks.decode(rle) == mask).all()
    runs = masks.counts_to_runs(rle["counts"], mask.size)
    assert runs[1::2].sum() == mask.sum() == masks.area(rle)
    assert masks.runs_to_counts(runs) == rle["counts"]
    for spelling in (rle["counts"].decode(), runs.tolist(), rle["counts"]):
        assert masks.normalize({"size": list(mask.shape), "counts": spelling}) == rle
    assert masks.to_json(rle)["counts"] == rle["counts"].decode()
    assert masks.is_empty(rle) == (not mask.any())


@given(st.binary(max_size=40), st.integers(0, 50), st.integers(0, 50))
@settings(max_examples=500, derandomize=True)
def test_garbage_is_refused_or_sound(counts, height, width):
    try:
        rle = masks.normalize({"size": [height, width], "counts": counts})
    except MaskError:
        return
    assert masks.counts_to_runs(rle["counts"]).sum() == height * width


@pytest.mark.parametrize(
    "bad",
    [
        {}, {"size": [2, 2]}, {"counts": b"4"}, {"size": [2], "counts": b"4"}, {"size": [2, -2], "counts": b"4"},
        {"size": ["a", 2], "counts": b"4"}, {"size": [10**6, 10**6], "counts": b"4"}, {"size": [2, 2], "counts": b"5"},
        {"size": [2, 2], "counts": [1, 2]}, {"size": [2, 2], "counts": [5, -1]}, {"size": [2, 2], "counts": [1.5, 2.5]},
        {"size": [2, 2], "counts": None}, {"size": [2, 2], "counts": b"PPPPPPPPPPPPPPPP0"}, {"size": [2, 2], "counts": "é"},
        None, 3, [],
    ],
)  # fmt: skip
def test_malformed(bad):
    with pytest.raises(MaskError, match=r"e1.*f\.json"):
        masks.normalize(bad, entry="e1", file="f.json")


def test_resizing_run_lengths_is_resizing_pixels():
    rng = np.random.default_rng(3)
    for trial in range(1500):
        height, width, rows, columns = (int(side) for side in rng.integers(1, 9, 4))
        mask = rng.random((height, width)) < (0.5, 0.1, 0.9, 0, 1)[trial % 5]
        down = ((np.arange(rows) + 0.5) * (height / rows)).astype(int)
        across = ((np.arange(columns) + 0.5) * (width / columns)).astype(int)
        resized = masks.resize(masks.encode(mask), rows, columns)
        assert resized == masks.encode(mask[np.ix_(down, across)]), (mask, rows, columns)


def test_union_and_resize():
    a, b = box(2, 2), box(20, 10)
    assert (masks.decode(masks.union([masks.encode(a), None, masks.encode(b)])) == (a | b)).all()
    assert masks.union([None]) is None
    with pytest.raises(MaskError, match="different sizes"):
        masks.union([masks.encode(a), masks.empty(3, 3)])
    big = masks.resize(masks.encode(a), 96, 128)
    assert (masks.decode(big) == np.kron(a, np.ones((2, 2)))).all()
    assert (masks.decode(masks.resize(big, 48, 64)) == a).all()
    pil = Image.fromarray(a).resize((50, 31), Image.Resampling.NEAREST)
    assert (masks.decode(masks.resize(masks.encode(a), 31, 50)) == np.asarray(pil)).all()


def test_polygons():
    square = [[10, 10], [30, 10], [30, 30], [10, 30]]
    assert masks.area(masks.from_polygons([square], 48, 64)) == 400
    hole = [[15, 15], [25, 15], [25, 25], [15, 25]]
    ring = masks.decode(masks.from_polygons([square], 48, 64, holes=[hole]))
    assert ring.sum() == 300
    assert not ring[20, 20]
    assert masks.area(masks.from_polygons([], 48, 64)) == 0
    assert masks.from_polygons([[10, 10, 30, 10, 30, 30, 10, 30]], 48, 64) == masks.from_polygons([square], 48, 64)
    for bad in (
        [[1, 2], [3, 4]],
        [[1, 2], [3, 4], [5]],
        [["a", 1], [2, 3], [4, 5]],
        [[0, 0], [1, float("nan")], [2, 2]],
    ):
        with pytest.raises(MaskError):
            masks.from_polygons([bad], 10, 10)


def test_png(tmp_path):
    mask = box(5, 5)
    path = tmp_path / "m.png"
    masks.to_png(masks.encode(mask), path)
    assert Image.open(path).mode == "L"
    assert set(np.unique(np.asarray(Image.open(path)))) == {0, 255}
    assert (masks.decode(masks.from_png(path)) == mask).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
def test_png_of_any_kind(tmp_path, mode):
    mask = box(5, 5)
    base = Image.fromarray(mask.astype(np.uint8) * 255)
    if mode == "P":
        image = Image.fromarray(mask.astype(np.uint8))
        image.putpalette([0, 0, 0, 0, 0, 1])  # a colour so dark that its luminance rounds to nothing
    elif mode == "I;16":
        image = Image.fromarray(mask.astype(np.uint16) * 300)
    else:
        image = base.convert(mode)
    image.save(tmp_path / "m.png")
    assert (masks.decode(masks.from_png(tmp_path / "m.png")) == mask).all()
    luminance = masks.decode(masks.from_png(tmp_path / "m.png", reading="luminance"))
    assert luminance.any() == (mode != "P")  # what the original evaluator sees


def test_transparent_is_background(tmp_path):
    pixels = np.zeros((10, 10, 4), np.uint8)
    pixels[..., 0] = 255
    pixels[2:4, 2:4, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "m.png")
    assert masks.area(masks.from_png(tmp_path / "m.png")) == 4


def test_palette(tmp_path):
    path = tmp_path / "p.png"
    objects = {1: masks.encode(box(2, 2)), 7: masks.encode(box(30, 20))}
    masks.to_palette_png(objects, path)
    image = Image.open(path)
    assert image.mode == "P"
    assert image.getpalette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]  # as DAVIS has it
    assert masks.from_palette_png(path) == objects
    labels = np.asarray(image).copy()
    labels[0, 0] = 255
    Image.fromarray(labels).save(path)
    assert set(masks.from_palette_png(path)) == {1, 7}  # 255 is void
    assert set(masks.from_palette_png(path, void=None)) == {1, 7, 255}
    for bad in ({}, {0: objects[1]}, {255: objects[1]}, {1: objects[1], 2: masks.empty(3, 3)}):
        with pytest.raises(MaskError):
            masks.to_palette_png(bad, path)


def test_bad_images_name_the_file(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("hello")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:40])
    for name in ("empty.png", "text.png", "cut.png", "missing.png"):
        with pytest.raises(MaskError, match=name):
            masks.from_png(tmp_path / name)
    Image.new("RGB", (3, 3)).save(tmp_path / "c.png")
    with pytest.raises(MaskError, match=r"RGB.*c\.png"):
        masks.from_palette_png(tmp_path / "c.png")
