"""Temporal grounding against independent computations."""

from __future__ import annotations

import itertools
import json
import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evqa import segments as seg
from evqa.scoring import segment_recall, temporal
from evqa.scoring.grounding import v1_segments

# Quarters are exact in binary, so that the rational check below is exact too.
moments = st.integers(0, 80).map(lambda i: i / 4)
spans = st.tuples(moments, moments).map(lambda t: [min(t), max(t)])
span_lists = st.lists(spans, max_size=5)


def by_cells(a, b):
    """The same numbers by counting quarter-second cells: a second implementation that knows no interval algebra."""

    def cells(segments):
        return {i for start, end in segments for i in range(int(start * 4), int(end * 4))}

    p, g = cells(a), cells(b)
    common = len(p & g)
    return {
        "iou": common / len(p | g) if common else 0.0,
        "precision": common / len(p) if p else 0.0,
        "recall": common / len(g) if g else 0.0,
    }


@given(span_lists, span_lists)
@settings(max_examples=400, derandomize=True)
def test_strict_equals_counting_cells(p, g):
    got, want = temporal(p, g), by_cells(p, g)
    for name, value in want.items():
        assert math.isclose(got[name], value, abs_tol=1e-12)
    assert got["iop"] == got["precision"]
    assert all(0 <= value <= 1 for value in got.values())


@given(span_lists, span_lists)
@settings(max_examples=200, derandomize=True)
def test_strict_cannot_be_raised_by_repeating_or_splitting(p, g):
    base = temporal(p, g)
    split = [piece for s, e in p for piece in ([s, (s + e) / 2], [(s + e) / 2, e])]
    for same in (p * 3, p[::-1], split, [*p, [5.0, 5.0]]):
        assert temporal(same, g)["iou"] == pytest.approx(base["iou"], abs=1e-12)
    assert temporal(g, p)["iou"] == pytest.approx(base["iou"], abs=1e-12)  # symmetric


@given(span_lists, span_lists)
@settings(max_examples=200, derandomize=True)
def test_set_algebra(p, g):
    union = seg.measure([*p, *g])
    common = seg.measure(seg.intersection(p, g))
    assert union + common == pytest.approx(seg.measure(p) + seg.measure(g), abs=1e-9)
    merged = seg.merge(p)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(merged))
    assert seg.merge(merged) == merged


def test_known_disagreements_of_the_protocols():
    # (prediction, reference, strict IoU, evqa-v1 IoU): the numbers of docs/protocols.md
    nan, inf = math.nan, math.inf
    for p, g, strict, v1 in [
        ([[0, 10]] * 2, [[0, 10]], 1.0, 2.0),  # n copies score n: 20 / (10 + 20 - 20) = 2
        ([[0, 10]] * 3, [[0, 10]], 1.0, 3.0),
        ([[0, 6], [4, 10]], [[0, 10]], 1.0, 1.2),
        ([[nan, 9.9]], [[0, 10]], 0.0, 99.00000000000036),
        ([[2, nan]], [[0, 10]], 0.0, 4.0),
        ([[-inf, inf]], [[0, 10]], 0.0, 0.0),
        ([[0, 15]], [[0, 10], [5, 15]], 1.0, 20 / 15),
    ]:
        assert temporal(p, g)["iou"] == pytest.approx(strict)
        assert temporal(p, g, "evqa-v1")["iou"] == pytest.approx(v1)
    assert temporal([[nan, nan], [0, 10]], [[0, 10]], "evqa-v1") == {
        "iou": 0.0,
        "iop": 2.0,
        "precision": 2.0,
        "recall": 2.0,
    }


def test_v1_uses_plain_float_arithmetic():
    # 0.1 .. 0.19 of 0.1 .. 0.4 is just under 0.3 in float64, and the original's >= 0.3 sees that.
    assert temporal([[0.1, 0.19]], [[0.1, 0.4]], "evqa-v1")["iou"] == 0.29999999999999993


def test_perfect_scores_are_exactly_one():
    for g in ([[0.1, 0.7]], [[1.7, 2.9], [3.3, 10.1]], [[0.1, 0.2], [0.2, 0.3]]):
        assert temporal(g, g)["iou"] == temporal(g, g)["recall"] == 1.0


@pytest.mark.parametrize("empty", [[], None, "", [[5, 5]], [[9, 1]], "nonsense"])
def test_nothing_covers_nothing(empty):
    zero = {"iou": 0.0, "iop": 0.0, "precision": 0.0, "recall": 0.0}
    assert temporal(empty, [[0, 1]]) == zero
    assert temporal([[0, 1]], empty) == zero


def test_read_names_what_it_drops():
    got, problems = seg.read(
        [[0, 1], [2], ["3", "4"], {"start": 5, "end": 6}, {"start_time": 7, "end_time": 8}, [9, 8], "x"]
    )
    assert got == [[0, 1], [3, 4], [5, 6], [7, 8]]
    assert len(problems) == 3
    assert seg.read([1, 2, 3])[0] == [[1, 2]]
    assert seg.read({"start": 0, "end": 1}) == ([], ["segments are a dict, not a list"])


def test_v1_format_errors():
    assert v1_segments(None) == (
        [],
        {"none_responses": 0, "parse_errors": 1, "empty_segments": 0, "malformed_segments": 0},
    )
    assert v1_segments(None, present=False)[1]["empty_segments"] == 1
    assert v1_segments([])[1]["empty_segments"] == 1
    assert v1_segments([[1], {"a": 2}, ["x", 1], [1, 2, 3]]) == (
        [[1.0, 2.0]],
        {"none_responses": 0, "parse_errors": 0, "empty_segments": 0, "malformed_segments": 3},
    )


def test_segment_recall():
    g = [[0, 2], [4, 6], [8, 10]]
    assert segment_recall([[0, 2], [4.2, 6]], g, 0.5) == pytest.approx(2 / 3)
    assert segment_recall([[0, 10]], g, 0.3) == 0.0  # one long segment meets none of them well
    assert segment_recall([[0, 10]], [[0, 10]], 0.7) == 1.0
    assert segment_recall([], g, 0.3) == segment_recall(g, [], 0.3) == 0.0
    # One prediction cannot serve two reference segments, and the matching is the largest possible.
    assert segment_recall([[0, 3.1]], [[0, 1], [2.1, 3.1]], 0.3) == 0.5
    assert segment_recall([[0, 3], [3.5, 6]], [[1, 3.2], [3.4, 6]], 0.3) == 1.0


def test_golden_temporal(shared):
    def plain(value):
        if isinstance(value, dict) and "__float__" in value:
            return float(value["__float__"])
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list) else value

    def same(a, b):
        return a == b or (math.isnan(a) and math.isnan(b))

    cases = json.loads((shared / "golden" / "temporal.json").read_text())["cases"]
    assert len(cases) > 250
    for case in cases:
        expected = plain(case["expected"])
        parsed = json.loads(case["prediction_json"]).get("parsed_response")
        said = parsed.get("segments") if parsed else None
        got = temporal(said, case["gt_segment_csv"], "evqa-v1")
        assert same(got["iou"], expected["evqa"]["iou"]), case["id"]
        assert same(got["iop"], expected["evqa"]["iop"]), case["id"]
        union = expected["interval_union"]
        strict = temporal(said, case["gt_segment_csv"])
        assert strict["iou"] <= 1
        for ours, theirs in (("iou", "iou"), ("iop", "iop"), ("recall", "recall")):
            assert strict[ours] == pytest.approx(union[theirs], abs=1e-12), case["id"]


def test_cells_check_is_itself_right():
    assert by_cells([[0, 1]], [[0.5, 2]])["iou"] == Fraction(1, 4)
