"""The mask kernel against the slow definition, on masks of every shape and on input that is out to break it.

``python tests/test_kernel.py`` writes ``tests/golden/jf_frames.json`` anew, from the definition and not the kernel.
"""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from evqa import masks
from evqa.errors import EvqaError, MaskError
from evqa.scoring import _portable, kernel

GOLDEN = Path(__file__).parent / "golden" / "jf_frames.json"
SHARED = Path(__file__).parents[2] / "shared" / "golden" / "masks.json"

needs_native = pytest.mark.skipif(kernel._native is None, reason="the native kernel is not built")
each_backend = pytest.mark.parametrize("backend", ["portable", pytest.param("native", marks=needs_native)])
bounded = settings(max_examples=120, deadline=None, derandomize=True, database=None)


# ------------------------------------------------------------------------------- the slow definition
def defined_boundary(mask: np.ndarray) -> np.ndarray:
    """Pixels that differ from the right, the lower or the lower right neighbour, indices held at the edge."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask != padded[:-1, 1:]) | (mask != padded[1:, :-1]) | (mask != padded[1:, 1:])


def defined_matches(mine: np.ndarray, theirs: np.ndarray, radius: int) -> int:
    """How many pixels of ``mine`` have one of ``theirs`` within ``radius``: every distance, one by one."""
    other = np.argwhere(theirs)
    if not other.size:
        return 0
    return sum(bool((((other - pixel) ** 2).sum(axis=1) <= radius * radius).any()) for pixel in np.argwhere(mine))


def transformed_matches(mine: np.ndarray, theirs: np.ndarray, radius: int) -> int:
    """The same by an exact distance transform, for large masks."""
    ndimage = pytest.importorskip("scipy.ndimage")
    if not theirs.any():
        return 0
    nearest = ndimage.distance_transform_edt(~theirs, return_distances=False, return_indices=True)
    squared = ((nearest.astype(np.int64) - np.indices(mine.shape)) ** 2).sum(axis=0)
    return int((squared[mine] <= radius * radius).sum())


def defined(pred: np.ndarray, ref: np.ndarray, matches=defined_matches) -> tuple[int, ...]:
    height, width = pred.shape
    radius = next(r for r in range(height + width + 1) if (125 * r) ** 2 >= height**2 + width**2)
    pred, ref = pred != 0, ref != 0
    pred_edge, ref_edge = defined_boundary(pred), defined_boundary(ref)
    found = matches(pred_edge, ref_edge, radius), matches(ref_edge, pred_edge, radius)
    areas = pred.sum(), ref.sum(), (pred & ref).sum(), pred_edge.sum(), ref_edge.sum()
    return tuple(int(value) for value in (*areas, *found))


# -------------------------------------------------------------------------------------------- masks
SHAPES = ("empty", "full", "pixel", "blocks", "noise", "sparse", "stripes", "frame", "corner")


def draw(rng: np.random.Generator, shape: str, height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    if shape == "full":
        mask[:] = True
    elif shape == "pixel":
        mask[rng.integers(height), rng.integers(width)] = True
    elif shape == "blocks":
        for _ in range(3):
            top, left = rng.integers(height), rng.integers(width)
            mask[top : top + rng.integers(1, height + 1), left : left + rng.integers(1, width + 1)] ^= True
    elif shape in ("noise", "sparse"):
        mask = rng.random((height, width)) < (0.5 if shape == "noise" else 0.02)
    elif shape == "stripes":
        mask[:: rng.integers(1, 4), :: rng.integers(1, 4)] = True
    elif shape == "frame":
        mask[[0, -1]] = mask[:, [0, -1]] = True
    elif shape == "corner":
        mask[height // 2 :, width // 2 :] = True
        mask = mask[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])].copy()
    return mask


def draw_pair(seed: int, shapes: tuple[str, str], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A pair of masks; half the time the first is the second one moved, so that some boundary pixels match."""
    rng = np.random.default_rng(seed)
    ref = draw(rng, shapes[1], height, width)
    if rng.random() < 0.5:
        return np.roll(ref, rng.integers(-4, 5, 2), (0, 1)) ^ (rng.random(ref.shape) < 0.003), ref
    return draw(rng, shapes[0], height, width), ref


# Words are 64 pixels, and a long side makes the radius large while the mask stays small.
around_words = st.sampled_from([1, 2, 63, 64, 65, 127, 128, 129])
sizes = st.one_of(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(around_words, st.integers(1, 20)),
    st.tuples(st.integers(1, 20), around_words),
    st.tuples(st.integers(1, 3), st.integers(200, 1500)),
    st.tuples(st.integers(200, 1500), st.integers(1, 3)),
)
shape_pairs = st.tuples(st.sampled_from(SHAPES), st.sampled_from(SHAPES))
seeds = st.integers(0, 2**32 - 1)


def all_ways(pred: np.ndarray, ref: np.ndarray) -> dict[str, tuple[int, ...]]:
    """The counts of one pair by every way into the kernel."""
    height, width = pred.shape
    rles = masks.encode(pred), masks.encode(ref)
    texts = [masks.to_json(rle) for rle in rles]
    lists = [{"size": rle["size"], "counts": masks.counts_to_runs(rle["counts"]).tolist()} for rle in rles]
    clip = kernel.count_clip([None, rles[0], texts[0]], [None, rles[1], texts[1]], height, width)
    assert clip.dtype == np.int64
    assert clip.shape == (3, 7)
    assert not clip[0].any()
    return {
        "arrays": kernel.count_pair(pred, ref),
        "uint8": kernel.count_pair(pred.astype(np.uint8) * 255, ref.astype(np.uint8)),
        "column-major": kernel.count_pair(np.asfortranarray(pred), np.asfortranarray(ref)),
        "mixed order": kernel.count_pair(np.asfortranarray(pred), np.ascontiguousarray(ref)),
        "transposed": kernel.count_pair(pred.T, ref.T),
        "rle": kernel.count_pair(*rles),
        "text": kernel.count_pair(*texts),
        "runs": kernel.count_pair(*lists),
        "array and rle": kernel.count_pair(pred, rles[1]),
        "rle and array": kernel.count_pair(rles[0], ref),
        "clip": tuple(clip[1].tolist()),
        "clip of text": tuple(clip[2].tolist()),
    }


# ------------------------------------------------------------------------------------------ the counts
@each_backend
@bounded
@given(seed=seeds, shapes=shape_pairs, size=sizes)
def test_counts_follow_the_definition(backend, seed, shapes, size):
    pred, ref = draw_pair(seed, shapes, *size)
    expected = defined(pred, ref, defined_matches if pred.size < 2500 else transformed_matches)
    with kernel.use_backend(backend):
        for way, counts in all_ways(pred, ref).items():
            assert counts == expected, way


@each_backend
@pytest.mark.parametrize(
    ("height", "width"), [(270, 480), (480, 854), (720, 1280), (1080, 1920), (7, 9000), (9000, 7), (300, 8200)]
)
@pytest.mark.parametrize("shapes", [("blocks", "blocks"), ("sparse", "corner")])
def test_counts_of_large_masks(backend, height, width, shapes):
    for seed in range(2):
        pred, ref = draw_pair(seed, shapes, height, width)
        expected = defined(pred, ref, transformed_matches)
        with kernel.use_backend(backend):
            assert kernel.count_pair(pred, ref) == expected
            assert kernel.count_pair(masks.encode(pred), masks.encode(ref)) == expected


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 64), (5, 8), (65, 3), (13, 200)])
@pytest.mark.parametrize("shapes", [(a, b) for a in SHAPES for b in SHAPES])
def test_every_pair_of_shapes(height, width, shapes):
    for seed in range(2):
        pred, ref = draw_pair(seed, shapes, height, width)
        expected = defined(pred, ref)
        for backend in ("portable", "native")[: 1 + (kernel._native is not None)]:
            with kernel.use_backend(backend):
                assert kernel.count_pair(pred, ref) == expected
                assert kernel.count_pair(masks.encode(pred), masks.encode(ref)) == expected


@each_backend
@pytest.mark.parametrize("distance", [0, 1])
@pytest.mark.parametrize("direction", [(0, 1), (1, 0), (0, -1), (-1, 0)])
def test_a_match_ends_exactly_at_the_radius(backend, direction, distance):
    height, width = 480, 854
    radius = kernel.tolerance_radius(height, width)
    for start in ((200, 400), (64, 64), (191, 447)):
        pred, ref = np.zeros((2, height, width), bool)
        pred[start] = True
        ref[start[0] + direction[0] * (radius + distance), start[1] + direction[1] * (radius + distance)] = True
        with kernel.use_backend(backend):
            counts = kernel.count_pair(pred, ref)
        # The boundary of one pixel is that pixel and its left, upper and upper left neighbours.
        assert counts[:5] == (1, 1, 0, 4, 4)
        assert counts == defined(pred, ref)
        assert (counts.pred_matched == 4) == (distance == 0)


@pytest.mark.parametrize(
    ("height", "width", "radius"),
    [(0, 0, 0), (1, 1, 1), (75, 100, 1), (75, 101, 2), (480, 854, 8), (720, 1280, 12), (2160, 3840, 36)],
)
def test_tolerance_radius(height, width, radius):
    assert kernel.tolerance_radius(height, width) == kernel.tolerance_radius(width, height) == radius


@settings(bounded, max_examples=300)
@given(height=st.integers(0, 65536), width=st.integers(0, 65536))
def test_tolerance_radius_is_the_smallest(height, width):
    radius, squared = kernel.tolerance_radius(height, width), height**2 + width**2
    assert (125 * radius) ** 2 >= squared
    assert radius == 0 or (125 * (radius - 1)) ** 2 < squared


# ---------------------------------------------------------------------------------------- forms of input
@each_backend
def test_arrays_of_any_layout_and_number_type(backend):
    rng = np.random.default_rng(3)
    large = rng.random((120, 200)) < 0.4
    views = [
        large[::2, ::3],
        large[::-1],
        large[:, ::-1],
        large[5:50, 7:91],
        large.T,
        np.broadcast_to(large[:1], (9, 200)),
    ]
    with kernel.use_backend(backend):
        for view in views:
            ref = np.roll(view, 2, 1)
            expected = kernel.count_pair(view.copy(order="C"), ref.copy(order="C"))
            assert expected == defined(view, ref, transformed_matches)
            assert kernel.count_pair(view, ref) == expected
            assert kernel.count_pair(view, view) == kernel.count_pair(view.copy(), view.copy())
            for dtype in (np.int8, np.int16, np.int64, np.float32):
                assert kernel.count_pair(view.astype(dtype) * -3, ref.astype(dtype) * 100) == expected
        assert kernel.count_pair([[0, 1], [0, 0]], [[0, 1], [0, 0]]) == (1, 1, 1, 2, 2, 2, 2)
        read_only = np.ones((3, 3), bool)
        read_only.flags.writeable = False
        assert kernel.count_pair(read_only, read_only).intersection == 9


@each_backend
@pytest.mark.parametrize("size", [(0, 0), (0, 7), (7, 0)])
def test_masks_without_pixels(backend, size):
    empty = np.zeros(size, bool)
    rle = masks.encode(empty)
    with kernel.use_backend(backend):
        assert kernel.count_pair(empty, empty) == (0,) * 7
        assert kernel.count_pair(rle, {"size": list(size), "counts": [0]}) == (0,) * 7
        assert kernel.count_pair(rle, empty) == (0,) * 7
        assert kernel.count_clip([rle, None], [None, rle], *size).tolist() == [[0] * 7] * 2
        assert kernel.count_clip([], [], *size).shape == (0, 7)


@each_backend
def test_runs_of_no_length_change_nothing(backend):
    """They are legal, and other encoders than pycocotools write them."""
    plain = {"size": [4, 5], "counts": [3, 6, 11]}
    padded = {"size": [4, 5], "counts": masks.runs_to_counts([3, 2, 0, 4, 0, 0, 11, 0, 0])}
    with kernel.use_backend(backend):
        assert kernel.count_pair(plain, padded) == kernel.count_pair(plain, plain)
        assert kernel.count_clip([padded], [plain], 4, 5).tolist() == [list(kernel.count_pair(plain, plain))]


# ----------------------------------------------------------------------------------------- hostile input
GOOD = bytes(coco.encode(np.asfortranarray(np.eye(8, 9, dtype=np.uint8)))["counts"])
HOSTILE = {
    "truncated number": GOOD[:-1] + b"P",
    "truncated runs": GOOD[: len(GOOD) // 2],
    "nothing": b"",
    "one run too many": GOOD + b"1",
    "below the code": b"!" + GOOD,
    "above the code": GOOD[:-1] + b"p",
    "a zero byte": b"\0" + GOOD,
    "bytes above ascii": b"\xff" * 40,
    "endless number": b"o" * 4096,
    "huge number": b"oooooooo0",
    "35 bits": b"oooooo?",
    "sum overflows": b"oooooo7" * 64,
    "negative run": b"N" + GOOD,
    "negative difference": b"1111" + b"@" * 8,
    "total too small": b"11",
    "text": "not an rle ~~~~",
    "text above ascii": "\N{SNOWMAN}" * 3,
    "lone surrogate": "\ud800",
}


@each_backend
@pytest.mark.parametrize("counts", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_counts_are_an_error(backend, counts):
    good, bad = {"size": [8, 9], "counts": GOOD}, {"size": [8, 9], "counts": counts}
    with kernel.use_backend(backend):
        with pytest.raises(MaskError, match="predicted mask"):
            kernel.count_pair(bad, good)
        with pytest.raises(MaskError, match="reference mask"):
            kernel.count_pair(good, bad)
        with pytest.raises(MaskError, match="reference mask 2"):
            kernel.count_clip([good] * 4, [good, None, bad, bad], 8, 9)


@each_backend
@pytest.mark.parametrize(
    "mask",
    [None, 3, "mask", object(), {}, {"size": [8, 9]}, {"counts": GOOD}, {"size": 8, "counts": GOOD}]
    + [{"size": size, "counts": GOOD} for size in ([8], [8, 9, 1], [-8, -9], ["a", 9], None, [1 << 20, 1 << 20])]
    + [{"size": [1 << 70, 1], "counts": GOOD}, {"size": [1 << 17, 1], "counts": GOOD}]
    + [{"size": [8, 9], "counts": counts} for counts in (None, 5, [1.5, 70.5], [-1, 73], [[72]], ["a"], {"a": 1})]
    + [np.zeros(72), np.zeros((8, 9, 1)), np.array([["a"] * 9] * 8), np.full((8, 9), None), [[1], [1, 2]]],
    ids=lambda mask: type(mask).__name__,
)
def test_what_is_not_a_mask_is_an_error(backend, mask):
    good = {"size": [8, 9], "counts": GOOD}
    with kernel.use_backend(backend):
        for pair in ((mask, good), (good, mask), (mask, np.zeros((8, 9)))):
            with pytest.raises(MaskError):
                kernel.count_pair(*pair)
        if mask is not None:
            with pytest.raises(MaskError, match="predicted mask 1"):
                kernel.count_clip([good, mask], [good, good], 8, 9)


@each_backend
def test_sizes_that_differ_are_an_error(backend):
    small, large = masks.empty(8, 9), masks.empty(9, 8)
    with kernel.use_backend(backend):
        for pair in ((small, large), (np.zeros((8, 9)), large), (np.zeros((8, 9)), np.zeros((9, 8)))):
            with pytest.raises(MaskError, match=r"8 x 9.*9 x 8"):
                kernel.count_pair(*pair)
        with pytest.raises(MaskError, match=r"reference mask 1.*9 x 8.*8 x 9"):
            kernel.count_clip([small, small], [small, large], 8, 9)
        with pytest.raises(MaskError, match="2 predicted, 1 reference"):
            kernel.count_clip([small, small], [small], 8, 9)
        with pytest.raises(MaskError, match="impossible size"):
            kernel.count_clip([None], [None], -8, 9)


@needs_native
@settings(bounded, max_examples=600)
@given(data=st.data(), size=st.sampled_from([(0, 0), (1, 1), (3, 5), (8, 9), (64, 2), (65, 70), (1, 3000), (480, 854)]))
def test_backends_agree_on_mutated_counts(data, size):
    """Whatever the bytes are, both refuse them for the same reason or count the same."""
    rng = np.random.default_rng(data.draw(seeds))
    good = masks.encode(draw(rng, rng.choice(SHAPES), *size) if min(size) else np.zeros(size))["counts"]
    edits = st.lists(st.tuples(st.integers(0, len(good)), st.integers(0, 2), st.binary(max_size=4)), max_size=3)
    bad = good
    for place, length, new in data.draw(edits):
        bad = bad[:place] + new + bad[place + length :]
    outcomes = []
    for module in (kernel._native, _portable):
        try:
            outcomes.append(module.pair_rle(bad, good, *size))
        except ValueError as error:
            outcomes.append(str(error))
    if all(isinstance(outcome, str) for outcome in outcomes):
        return
    assert outcomes[0] == outcomes[1]
    area = int(masks.counts_to_runs(bad, size[0] * size[1])[1::2].sum())
    assert outcomes[0][0] == area


@needs_native
def test_native_refuses_wrong_arguments():
    native, pixels = kernel._native, np.zeros((8, 9), np.uint8)
    for wrong in (pixels[:, ::2], pixels.astype(np.int32), pixels[:4], np.zeros((8, 90), np.uint8)[:, ::10], b"", b"1"):
        for pair in ((wrong, pixels), (pixels, wrong)):
            with pytest.raises(ValueError, match="mask buffer"):
                native.pair_bytes(*pair, 8, 9)
    for sizes_ in ((-1, 9), (1 << 17, 1), (1 << 16, 1 << 16)):
        with pytest.raises(ValueError, match="impossible mask size"):
            native.pair_rle(GOOD, GOOD, *sizes_)
    for arguments in ((), (GOOD, GOOD, 8), (GOOD, 5, 8, 9), (GOOD, GOOD, "8", 9), (GOOD, GOOD, 8.0, 9)):
        with pytest.raises(TypeError):
            native.pair_rle(*arguments)
    with pytest.raises(TypeError):
        native.clip_rle([GOOD, 5], [GOOD, GOOD], 8, 9)
    with pytest.raises(TypeError):
        native.clip_rle(5, [GOOD], 8, 9)
    with pytest.raises(ValueError, match="2 predicted, 1 reference"):
        native.clip_rle([GOOD, GOOD], [GOOD], 8, 9)
    with pytest.raises(ValueError, match="reference mask 1: "):
        native.clip_rle([GOOD, GOOD], [GOOD, GOOD[:-1]], 8, 9)


# ---------------------------------------------------------------------------------------------- backends
def test_use_backend_is_nested_and_local_to_the_thread():
    default = kernel.backend()
    assert default == ("portable" if kernel._native is None else "native")
    seen = []
    with kernel.use_backend("portable"):
        assert kernel.backend() == "portable"
        thread = threading.Thread(target=lambda: seen.append(kernel.backend()))
        thread.start()
        thread.join()
        with pytest.raises(RuntimeError), kernel.use_backend("portable"):
            raise RuntimeError
        assert kernel.backend() == "portable"
    assert kernel.backend() == default
    assert seen == [default]
    with pytest.raises(ValueError, match="unknown backend"), kernel.use_backend("cuda"):
        pass


def test_a_backend_that_is_not_built_is_an_error(monkeypatch):
    monkeypatch.setattr(kernel, "_native", None)
    assert kernel.backend() == "portable"
    assert kernel.count_pair(np.ones((2, 2)), np.ones((2, 2))).intersection == 4
    with pytest.raises(EvqaError, match="not built"), kernel.use_backend("native"):
        pass


def test_threads_do_not_disturb_each_other():
    pairs = [draw_pair(seed, ("blocks", "blocks"), 97, 301) for seed in range(24)]
    clip = [[masks.encode(pair[side]) for pair in pairs] for side in (0, 1)]
    expected = kernel.count_clip(*clip, 97, 301)
    with ThreadPoolExecutor(8) as pool:
        for counts in pool.map(lambda _: kernel.count_clip(*clip, 97, 301), range(40)):
            np.testing.assert_array_equal(counts, expected)


# ------------------------------------------------------------------------------------------------ golden
def frame_score(counts: kernel.MaskCounts) -> list[float]:
    """J and F as the ST-Evidence evaluator gives them, in its order of operations."""
    if not counts.pred_area or not counts.ref_area:
        return [float(counts.pred_area == counts.ref_area)] * 2
    j = counts.intersection / (counts.pred_area + counts.ref_area - counts.intersection)
    if not counts.pred_boundary or not counts.ref_boundary:
        return [j, float(counts.pred_boundary == counts.ref_boundary)]
    precision = counts.pred_matched / counts.pred_boundary
    recall = counts.ref_matched / counts.ref_boundary
    return [j, 2 * precision * recall / (precision + recall) if precision + recall else 0.0]


@each_backend
def test_golden_counts(backend):
    cases = json.loads(GOLDEN.read_text())["cases"]
    assert len(cases) >= 40
    with kernel.use_backend(backend):
        for case in cases:
            rles = [{"size": case["size"], "counts": case[side]} for side in ("pred", "ref")]
            assert list(kernel.count_pair(*rles)) == case["counts"], case["name"]
            assert list(kernel.count_pair(*(masks.decode(rle) for rle in rles))) == case["counts"], case["name"]


@each_backend
@pytest.mark.skipif(not SHARED.exists(), reason="the published evaluators' scores are not here")
def test_scores_of_the_published_evaluator(backend):
    frames = json.loads(SHARED.read_text())["frames"]
    with kernel.use_backend(backend):
        for frame in frames:
            rles = [{"size": frame["size"], "counts": frame[side]} for side in ("pred", "gt")]
            assert frame_score(kernel.count_pair(*rles)) == frame["expected"]["evqa"], frame["id"]
            assert kernel.tolerance_radius(*frame["size"]) == frame["radius"]
            counts = kernel.count_clip([rles[0]], [rles[1]], *frame["size"])
            assert frame_score(kernel.MaskCounts(*counts[0].tolist())) == frame["expected"]["evqa"], frame["id"]


def write_golden() -> None:
    shapes = [(a, b) for a in SHAPES[2:] for b in SHAPES[2:]][::3]
    shapes += [("empty", "empty"), ("empty", "full"), ("full", "full"), ("full", "pixel"), ("blocks", "empty")]
    sizes_ = [(1, 1), (1, 40), (40, 1), (5, 7), (33, 65), (64, 64), (130, 128), (3, 700), (300, 20)]
    cases = []
    for index in range(45):
        (height, width), pair = sizes_[index % len(sizes_)], shapes[index % len(shapes)]
        pred, ref = draw_pair(index, pair, height, width)
        texts = [masks.to_json(masks.encode(mask))["counts"] for mask in (pred, ref)]
        name = f"{index:02d}_{height}x{width}_{pair[0]}_{pair[1]}"
        case = {"name": name, "size": [height, width], "pred": texts[0], "ref": texts[1]}
        cases.append({**case, "counts": list(defined(pred, ref))})
    lines = ",\n".join(json.dumps(case) for case in cases)
    source = "own masks; counts by the slow definition in tests/test_kernel.py, in the order of MaskCounts"
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(f'{{"source": {json.dumps(source)}, "cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    write_golden()
