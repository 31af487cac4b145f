"""J and F of frames and clips."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from make_data import box

from evqa import masks
from evqa.errors import MaskError
from evqa.scoring import clip_jf, jf


def textbook(predicted, reference):
    """J and F from the definition, with a brute-force distance; slow, and sharing nothing with the package."""
    if not predicted.any() and not reference.any():
        return 1.0, 1.0
    if not predicted.any() or not reference.any():
        return 0.0, 0.0
    j = (predicted & reference).sum() / (predicted | reference).sum()

    def edge(mask):
        h, w = mask.shape
        out = []
        for y in range(h):
            for x in range(w):
                near = [mask[min(y + dy, h - 1), min(x + dx, w - 1)] for dy, dx in ((0, 1), (1, 0), (1, 1))]
                if any(value != mask[y, x] for value in near):
                    out.append((y, x))
        return out

    p, r = edge(predicted), edge(reference)
    if not p or not r:
        return j, float(not p and not r)
    radius = math.ceil(0.008 * math.hypot(*predicted.shape))

    def found(a, b):
        return sum(any((y - v) ** 2 + (x - u) ** 2 <= radius**2 for v, u in b) for y, x in a) / len(a)

    precision, recall = found(p, r), found(r, p)
    return j, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def frame(t, mask):
    return {"frame": t, "time": None, "rle": masks.encode(mask)}


def test_frames_against_the_definition():
    generator = np.random.default_rng(5)
    for _ in range(40):
        h, w = (int(v) for v in generator.integers(3, 40, size=2))
        shapes = []
        for _ in range(2):
            mask = np.kron(generator.random((4, 4)) < 0.45, np.ones((h, w)))[::4, ::4][:h, :w] > 0
            shapes.append(mask)
        want = textbook(*shapes)
        got = jf(*shapes)
        assert got == pytest.approx(want, abs=1e-15)
        assert jf(masks.encode(shapes[0]), masks.encode(shapes[1])) == got
        assert jf(masks.to_json(masks.encode(shapes[0])), shapes[1]) == got


def test_empty_and_full_frames():
    nothing, full, some = np.zeros((20, 30), bool), np.ones((20, 30), bool), box(5, 5, 6, 6, 20, 30)
    assert jf(nothing, nothing) == (1.0, 1.0)
    assert jf(some, nothing) == jf(nothing, some) == (0.0, 0.0)
    assert jf(full, full) == (1.0, 1.0)
    assert jf(full, nothing) == (0.0, 0.0)
    assert jf(full, nothing, "davis") == (0.0, 1.0)  # neither has a boundary
    assert jf(nothing, nothing, "davis") == (1.0, 1.0)


def test_void_pixels_are_taken_out():
    reference, predicted = box(5, 5, 10, 10), box(5, 5, 20, 10)
    void = box(15, 0, 10, 48)
    assert jf(predicted, reference)[0] == 0.5
    assert jf(predicted, reference, void=void) == (1.0, 1.0)


def test_sizes_must_agree():
    a, b = box(2, 2, 8, 8, 20, 30), box(2, 2, 8, 8, 30, 20)
    with pytest.raises(MaskError):
        jf(a, b)
    with pytest.raises(MaskError, match="different sizes"):
        jf(a, b, "evqa-v1")
    # The original looks at sizes only when both masks have foreground.
    assert jf(a, np.zeros((30, 20)), "evqa-v1") == (0.0, 0.0)
    assert jf(np.zeros((20, 30)), np.zeros((7, 7)), "evqa-v1") == (1.0, 1.0)


def test_malformed_rle_is_named():
    good = masks.encode(box(2, 2))
    for bad in ({"size": [48, 64], "counts": "zzz"}, {"size": [48, 64]}, {"size": [4, 4], "counts": good["counts"]}):
        with pytest.raises(MaskError):
            jf(bad, good)


# --------------------------------------------------------------------------------------------- clips
REFERENCE = [frame(t, box(4 * t, 8)) for t in range(4)]


def test_every_reference_frame_is_scored():
    assert clip_jf(REFERENCE, REFERENCE).jf == 1.0
    half = clip_jf(REFERENCE[:2], REFERENCE)
    assert (half.j, half.f, half.frames) == (0.5, 0.5, 4)
    # Writing fewer frames, or frames that nobody asked about, never raises the score.
    extra = [frame(t, np.zeros((48, 64))) for t in range(50, 90)]
    assert clip_jf(REFERENCE[:2] + extra, REFERENCE).j == half.j
    for k in range(4):
        assert clip_jf(REFERENCE[:k], REFERENCE).j == k / 4
    assert clip_jf([], REFERENCE).jf == 0.0


def test_v1_scores_the_frames_of_the_prediction():
    one = clip_jf(REFERENCE[:1], REFERENCE, "evqa-v1")
    assert (one.j, one.f, one.frames) == (1.0, 1.0, 1)  # the original's weakness, kept
    black = [{"frame": -1, "time": None, "rle": masks.empty(48, 64)}]
    assert clip_jf(black, REFERENCE, "evqa-v1").jf == 1.0
    assert clip_jf(black, REFERENCE).jf == 0.0
    assert clip_jf([], REFERENCE, "evqa-v1").jf == 0.0
    unreadable = [{"frame": 0, "time": None, "rle": None}]
    assert math.isnan(clip_jf(unreadable, REFERENCE, "evqa-v1").jf)  # the original drops such an entry
    assert clip_jf(unreadable, REFERENCE).jf == 0.0


def test_masks_of_one_frame_are_united():
    left, right = box(0, 8, 8), box(8, 8, 8)
    parts = [frame(0, left), frame(0, right)]
    assert clip_jf(parts, [frame(0, left | right)]).jf == 1.0
    assert clip_jf([frame(0, left | right)], parts).jf == 1.0


def test_problems_are_told():
    wrong = [frame(0, box(0, 8)), {"frame": 1, "time": None, "rle": {"size": [48, 64], "counts": b"~~"}}]
    wrong += [frame(2, box(0, 0, 5, 5, 20, 20)), {"frame": 3, "time": None, "rle": None}]
    got = clip_jf(wrong, REFERENCE)
    assert got.j == 0.25
    assert any("unreadable" in problem and "1, 3" in problem for problem in got.problems)
    assert any("20x20" in problem and "48x64" in problem for problem in got.problems)


def test_v_iou_punishes_masks_where_there_is_no_evidence():
    assert clip_jf(REFERENCE, REFERENCE).v_iou == 1.0
    everywhere = REFERENCE + [frame(t, box(0, 0)) for t in range(4, 12)]
    got = clip_jf(everywhere, REFERENCE)
    assert (got.jf, got.spurious_frames) == (1.0, 8)
    assert got.v_iou == pytest.approx(4 / 12)
    assert clip_jf(REFERENCE[:1], REFERENCE).v_iou == 0.25
    nothing = [frame(0, np.zeros((48, 64)))]
    assert math.isnan(clip_jf(nothing, nothing).v_iou)


def test_reference_must_be_sound():
    with pytest.raises(MaskError, match="different sizes"):
        clip_jf([], [frame(0, box(0, 0)), frame(1, box(0, 0, 4, 4, 20, 20))])
    with pytest.raises(MaskError, match="frame 3"):
        clip_jf([], [{"frame": 3, "time": None, "rle": None}])


# -------------------------------------------------------------------------------------------- golden
def rle(counts, size):
    return {"size": size, "counts": counts}


def test_golden_frames(shared):
    cases = json.loads((shared / "golden" / "masks.json").read_text())["frames"]
    assert len(cases) > 200
    for case in cases:
        pair = rle(case["pred"], case["size"]), rle(case["gt"], case["size"])
        assert list(jf(*pair, "evqa-v1")) == case["expected"]["evqa"], case["id"]
        assert list(jf(*pair, "strict")) == case["expected"]["evqa"], case["id"]
        assert list(jf(*pair, "davis")) == case["expected"]["davis"], case["id"]


def test_golden_void(shared):
    data = json.loads((shared / "golden" / "masks.json").read_text())
    frames = {case["id"]: case for case in data["frames"]}
    assert data["void"]
    for case in data["void"]:
        base = frames[case["case"]]
        pair = rle(base["pred"], base["size"]), rle(base["gt"], base["size"])
        assert list(jf(*pair, "davis", void=rle(case["void"], base["size"]))) == case["davis"], case["case"]


def test_golden_entries(shared, tmp_path):
    """Whole folders, through the reader, as the original evaluator scores them."""
    from evqa.predictions import read_mask_folder

    for case in json.loads((shared / "golden" / "masks.json").read_text())["entries"]:
        folder = tmp_path / case["id"]
        folder.mkdir()
        for name, value in case["pred"].items():
            if isinstance(value, dict):
                masks.to_png(value, folder / name)
            else:
                (folder / name).write_bytes(b"not a png")
        predicted, _ = read_mask_folder(folder, reading="luminance", exact_names=True)
        reference = [
            {"frame": int(name.removesuffix(".png")), "time": None, "rle": masks.normalize(value)}
            for name, value in case["gt"].items()
        ]
        expected = case["evqa_J_F_count"]
        if isinstance(expected, str):
            with pytest.raises(MaskError, match="different sizes"):
                clip_jf(predicted, reference, "evqa-v1")
            continue
        got = clip_jf(predicted, reference, "evqa-v1")
        assert [got.j, got.f, got.frames] == expected, case["id"]


def test_davis_predictions(shared):
    """J and F per frame of the OSVOS and RVOS results that DAVIS ships, against the definition by OpenCV."""
    cv2 = pytest.importorskip("cv2")
    davis = shared / "data" / "davis"
    truth = sorted((davis / "Annotations" / "480p" / "car-shadow").glob("*.png"))
    for system in ("osvos", "rvos"):
        for path in truth[::8]:
            r = masks.decode(masks.from_png(path))
            p = masks.decode(masks.from_png(davis / f"predictions_{system}" / "car-shadow" / path.name))
            radius = math.ceil(0.008 * np.linalg.norm(r.shape))
            disk = np.add.outer(np.arange(-radius, radius + 1) ** 2, np.arange(-radius, radius + 1) ** 2) <= radius**2

            def edge(m):
                e = np.zeros(m.shape, np.uint8)
                e[:, :-1] |= m[:, 1:] ^ m[:, :-1]
                e[:-1, :] |= m[1:, :] ^ m[:-1, :]
                e[:-1, :-1] |= m[1:, 1:] ^ m[:-1, :-1]
                return e

            pe, re = edge(p), edge(r)
            precision = (pe & cv2.dilate(re, disk.astype(np.uint8))).sum() / max(1, pe.sum())
            recall = (re & cv2.dilate(pe, disk.astype(np.uint8))).sum() / max(1, re.sum())
            j = (p & r).sum() / (p | r).sum()
            f = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
            if p.any():
                assert jf(p, r) == (j, f), (system, path.name)
