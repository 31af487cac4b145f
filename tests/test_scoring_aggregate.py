"""Whole benchmarks: means, denominators, failures, joint scores, intervals."""

from __future__ import annotations

import json
import math
import random

import pytest
from make_data import benchmark, box
from scipy import stats

from evqa import masks
from evqa.errors import DataError, PredictionError
from evqa.scoring import breakdown, compare, evidence_grid, mcnemar, metric_names, score
from evqa.types import Prediction


def perfect(rows):
    return [
        Prediction(r["entry_id"], answer="ABCDE"[r["answer_index"]], segments=r["segments"], masks=r["masks"])
        for r in rows
    ]


@pytest.mark.parametrize("protocol", ["strict", "evqa-v1"])
def test_the_reference_scores_100(protocol):
    rows = benchmark()
    scores = score(perfect(rows), rows, protocol)
    assert all(scores[name] == 100.0 for name in metric_names("gen", protocol)), dict(scores)
    assert scores.complete
    assert (scores["num_samples"], scores["num_frames"]) == (12, 72)
    assert scores["protocol"] == protocol
    assert scores["protocol_version"]


def test_denominators_come_from_the_reference():
    rows = benchmark()
    some = perfect(rows)[:3]
    scores = score(some, rows)
    assert scores["accuracy"] == scores["mIoU"] == scores["J&F"] == pytest.approx(25.0)
    assert scores["num_missing"] == 9
    assert not scores.complete


def test_failures_score_nothing_whatever_they_carry():
    rows = benchmark(2)
    empty = [{**rows[0], "masks": [{"frame": t, "time": None, "rle": masks.empty(48, 64)} for t in range(3)]}, rows[1]]
    failed = Prediction.failure("e000", "truncated", "cut off", answer="A", segments=rows[0]["segments"])
    scores = score([failed, perfect(rows)[1]], empty)
    assert scores["accuracy"] == scores["mIoU"] == scores["J"] == scores["EBA@0.3"] == 50.0
    assert scores["num_failed"] == 1
    # Answered without masks, an annotated empty frame is agreement; not answered at all, it is not.
    answered = Prediction("e000", answer="A")
    assert score([answered, perfect(rows)[1]], empty)["J"] == 100.0


def test_entries_without_evidence_do_not_dilute():
    rows = benchmark(4)
    rows[0] = {**rows[0], "segments": [], "masks": None}
    scores = score(perfect(rows), rows)
    assert (scores["num_with_segments"], scores["num_with_masks"]) == (3, 3)
    assert scores["mIoU"] == scores["J&F"] == 100.0
    v1 = score(perfect(rows), rows, "evqa-v1")
    assert v1["mIoU"] == 75.0  # the original counts them as zero
    assert v1["J&F"] == 100.0  # but leaves out entries without a mask folder


def test_evidence_backed_accuracy_by_hand():
    rows = benchmark(4)
    said = perfect(rows)
    said[0].answer = "D"  # wrong answer, right evidence
    said[1].segments = [[0.0, 100.0]]  # right answer, wrong time
    said[2].masks = said[2].masks[:2]  # right answer, a third of the masks
    scores = score(said, rows)
    assert scores["EBA@0.3"] == 50.0
    assert scores["EBA@0.5"] == 25.0
    assert scores["Acc@GQA"] == 50.0
    grid = evidence_grid([entry.values for entry in scores.entries], [0.0, 0.3, 0.5])
    assert grid[0.0, 0.0] == scores["accuracy"] == 75.0
    assert grid[0.3, 0.3] == scores["EBA@0.3"]
    assert grid[0.5, 0.3] == 50.0
    assert grid[0.3, 0.5] == 25.0
    assert all(grid[a, b] >= grid[c, d] for a, b in grid for c, d in grid if a <= c and b <= d)


def test_thresholds_have_no_float_traps():
    rows = [{**benchmark(1)[0], "segments": [[0.1, 0.4]], "masks": None}]
    said = [Prediction("e000", answer="A", segments=[[0.1, 0.19]])]
    assert score(said, rows)["TIoU@0.3"] == 100.0
    assert score(said, rows, "evqa-v1")["TIoU@0.3"] == 0.0


def test_forms_of_predictions_and_references():
    rows = benchmark(3)
    raw = [
        {
            "entry_id": r["entry_id"],
            "options": repr(r["candidates"]),
            "answer": r["answer"],
            "segment": repr(r["segments"]),
        }
        for r in rows
    ]
    original = {
        r["entry_id"]: {"video_id": "x", "parsed_response": {"answer": r["answer"], "segments": r["segments"]}}
        for r in rows
    }
    readme = {r["entry_id"]: {"answer": r["answer"], "time_segments": r["segments"]} for r in rows}
    own = {r["entry_id"]: {"answer": r["answer"], "segments": r["segments"]} for r in rows}
    for said in (original, readme, own):
        for protocol in ("strict", "evqa-v1"):
            scores = score(said, raw, protocol)
            assert scores["accuracy"] == scores["mIoU"] == 100.0
    by_frame = {r["entry_id"]: {f"{m['frame']:05d}.png": m["rle"] for m in r["masks"]} for r in rows}
    by_name = [{**r, "masks": by_frame[r["entry_id"]]} for r in rows]
    said = {e: {"answer": "A", "masks": {int(name[:5]): rle for name, rle in m.items()}} for e, m in by_frame.items()}
    assert score(said, by_name)["J&F"] == score(said, rows)["J&F"] == 100.0
    odd = {e: {"answer": "A", "masks": {"zzz.png": masks.empty(48, 64)}} for e in said}
    assert score(odd, rows)["J"] == 0.0
    assert score(odd, rows, "evqa-v1")["J"] == 100.0
    with pytest.raises(PredictionError, match="unknown form"):
        score({"e000": {"foo": 1}}, raw)
    with pytest.raises(PredictionError, match="two predictions"):
        score([Prediction("e000"), Prediction("e000")], raw)
    with pytest.raises(DataError, match="twice"):
        score({}, raw + raw[:1])
    with pytest.raises(DataError, match="no entries"):
        score({}, [])
    with pytest.raises(DataError, match=r"not a Python literal.*e000"):
        score({}, [{**raw[0], "segment": "[[1, 2"}])
    assert score({**own, "stranger": {"answer": "A"}}, raw).extra == ["stranger"]


def test_what_stops_the_original_is_an_error_with_a_name():
    rows = benchmark(2)
    for value in (None, ["x"], {"parsed_response": "A"}, {"parsed_response": []}):
        said = {"e000": value, "e001": {"parsed_response": {"answer": "B"}}}
        if isinstance(value, list):
            with pytest.raises(PredictionError, match="e000"):
                score(said, rows)
            continue
        scores = score(said, rows)
        assert scores["num_failed"] + scores["num_missing"] == 1
        with pytest.raises(PredictionError, match=r"original evaluator stops.*e000"):
            score(said, rows, "evqa-v1")


def test_v1_format_errors_add_up():
    rows = benchmark(5)
    said = {
        "e000": {"parsed_response": None},
        "e001": {"parsed_response": {"answer": "B", "segments": [[1]]}},
        "e002": {"parsed_response": {"answer": "B"}},
        "e003": {"parsed_response": {"answer": "B", "segments": "x"}},
    }
    assert score(said, rows, "evqa-v1").format_errors == {
        "none_responses": 1, "parse_errors": 1, "empty_segments": 1, "malformed_segments": 1,
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------- mcq
def choose(rows, **wrong):
    out = []
    for r in rows:
        said = {
            "answer": "ABCD"[r["answer_index"]],
            "temporal_choice": "ABCD"[r["temporal_answer"]],
            "spatial_choice": "ABCD"[r["spatial_answer"]],
        }
        out.append(Prediction(r["entry_id"], **said))
    for key, name in wrong.items():
        setattr(out[int(key[1:])], name, None)
    return out


def test_mcq():
    rows = benchmark(4)
    assert all(value == 100.0 for value in score(choose(rows), rows, task="mcq").metrics().values())
    scores = score(choose(rows, _0="temporal_choice", _1="answer"), rows)
    assert scores.task == "mcq"
    assert scores["temporal_accuracy"] == scores["qa_accuracy"] == scores["temporal_coverage"] == 75.0
    assert scores["spatial_accuracy"] == scores["spatial_coverage"] == 100.0
    assert scores["overall_accuracy"] == pytest.approx(100 * 10 / 12)
    assert scores["all_three_accuracy"] == 50.0


def test_mcq_denominators():
    rows = benchmark(4)
    one = choose(rows)[:1]
    assert score(one, rows)["overall_accuracy"] == 25.0
    assert score(one, rows, "evqa-v1")["overall_accuracy"] == 100.0  # what is not in the file does not exist
    five_way = choose(rows)
    five_way[0].temporal_choice = "E"
    assert score(five_way, rows)["temporal_coverage"] == 75.0
    assert score(five_way, rows, "evqa-v1")["temporal_coverage"] == 100.0


def test_mcq_v1_reads_the_truth_from_the_file():
    said = {
        "x": {"answer": "A", "gt_answer": "A", "evidence_t": "B", "gt_evidence_t": "C"},
        "y": {"answer": "a", "gt_answer": "A"},
    }
    scores = score(said, benchmark(2), "evqa-v1")
    assert scores["qa_accuracy"] == 50.0
    assert scores["overall_accuracy"] == pytest.approx(100 / 3)


def test_golden_mcq(shared):
    for case in json.loads((shared / "golden" / "mcq.json").read_text())["cases"]:
        scores = score({case["id"]: case["entry"]}, benchmark(1), "evqa-v1", task="mcq", bootstrap=0)
        for name, (total, valid, correct) in case["evqa"].items():
            if total:
                assert scores[f"{name}_accuracy"] == 100.0 * correct, case["id"]
                assert scores[f"{name}_coverage"] == 100.0 * valid, case["id"]
            else:
                assert f"{name}_accuracy" not in scores


# --------------------------------------------------------------------------------------- uncertainty
def noisy(rows, rate, seed):
    dice = random.Random(seed)
    said = perfect(rows)
    for prediction, row in zip(said, rows, strict=True):
        if dice.random() < rate:
            prediction.answer = "ABCD"[(row["answer_index"] + 1) % 4]
    return said


def test_intervals_match_an_independent_cluster_bootstrap():
    rows = [{**r, "video_id": f"v{i // 4}"} for i, r in enumerate(benchmark(80))]
    scores = score(noisy(rows, 0.4, 1), rows, bootstrap=4000)
    by_video: dict[str, list[float]] = {}
    for entry in scores.entries:
        by_video.setdefault(entry.cluster, []).append(entry.values["accuracy"])
    dice, videos, means = random.Random(2), list(by_video.values()), []
    for _ in range(4000):
        drawn = [value for _ in videos for value in dice.choice(videos)]
        means.append(100 * sum(drawn) / len(drawn))
    means.sort()
    low, high = scores.intervals["accuracy"]
    assert low == pytest.approx(means[100], abs=1.5)
    assert high == pytest.approx(means[3900], abs=1.5)
    assert low < scores["accuracy"] < high
    assert score(noisy(rows, 0.4, 1), rows, bootstrap=4000).intervals == scores.intervals  # same seed, same numbers


def test_clusters_widen_intervals():
    rows = benchmark(60)
    together = [{**r, "video_id": f"v{i // 20}"} for i, r in enumerate(rows)]
    said = perfect(rows)
    for prediction in said[:20]:
        prediction.answer = "nothing"
    alone = [{**r, "video_id": r["entry_id"]} for r in rows]

    def width(data):
        low, high = score(said, data).intervals["accuracy"]
        return high - low

    assert width(together) > 2 * width(alone)


def test_compare():
    rows = benchmark(120)
    a, b = score(noisy(rows, 0.5, 1), rows, bootstrap=0), score(noisy(rows, 0.1, 2), rows, bootstrap=0)
    result = compare(a, b)["accuracy"]
    assert result["difference"] == pytest.approx(b["accuracy"] - a["accuracy"])
    assert 0 < result["low"] < result["difference"] < result["high"]
    assert result["p"] < 0.01
    assert result["mcnemar_p"] < 0.01
    same = compare(a, a)["accuracy"]
    assert (same["difference"], same["low"], same["high"], same["p"], same["mcnemar_p"]) == (0, 0, 0, 1, 1)
    flipped = compare(b, a)["accuracy"]
    assert flipped["difference"] == -result["difference"]
    assert flipped["p"] == result["p"]
    with pytest.raises(DataError, match="different references"):
        compare(a, score(perfect(rows[:5]), rows[:5], bootstrap=0))
    with pytest.raises(DataError, match="cannot compare"):
        compare(a, score(perfect(rows), rows, "evqa-v1", bootstrap=0))


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (3, 9), (10, 10), (40, 17), (900, 1100)])
def test_mcnemar_against_scipy(only_a, only_b):
    n = only_a + only_b
    want = stats.binomtest(only_a, n, 0.5).pvalue if n else 1.0
    assert math.isclose(mcnemar(only_a, only_b), want, rel_tol=1e-9)


def test_breakdown():
    rows = benchmark(12)
    said = noisy(rows, 0.5, 3)
    scores = score(said, rows)
    groups = breakdown(scores, {r["entry_id"]: json.loads(r["metadata"])["question_type"] for r in rows[:11]})
    assert set(groups) == {"what", "when", "(none)"}
    assert sum(numbers["num_samples"] for numbers in groups.values()) == 12
    pooled = sum(numbers["accuracy"] * numbers["num_samples"] for numbers in groups.values()) / 12
    assert pooled == pytest.approx(scores["accuracy"])


def test_numpy_mean_order_is_kept():
    """The aggregate is numpy's mean of the entries times 100, to the last bit, as in the original."""
    import numpy as np

    rows = benchmark(101)
    dice = random.Random(7)
    said = perfect(rows)
    for prediction in said:
        prediction.segments = [[dice.random(), 1 + dice.random()]]
        prediction.masks = [{**m, "rle": masks.encode(box(dice.randrange(30), 7))} for m in prediction.masks]
    scores = score(said, rows, "evqa-v1", bootstrap=0)
    assert scores["t_mean"] == float(np.mean([(e.values["mIoU"] + e.values["mIoP"]) / 2 for e in scores.entries])) * 100
    assert scores["J&F"] == float(np.mean([(e.values["J"] + e.values["F"]) / 2 for e in scores.entries])) * 100
