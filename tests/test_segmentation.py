"""Step two: masks per expression and their union, at any frame rate, in one batch or many, killed and continued."""

from __future__ import annotations

import json

import numpy as np
import pytest
from make_data import HEIGHT, WIDTH, benchmark

from evqa import masks
from evqa.cli import main
from evqa.engine import run
from evqa.errors import AdapterError, SetupError
from evqa.runlog import RunLog
from evqa.scoring import score
from evqa.segmentation import SegmentationStep, joined
from evqa.segmenters import Segmenter, load_segmenter, segmenter_names
from evqa.types import Prediction

pytest.importorskip("av")


class Boxes(Segmenter):
    """Outlines rows of the frame: the expression's length says which, so every mask can be checked."""

    name = "boxes"

    def __init__(self, max_side=None):
        self.max_side = max_side
        self.asked = []
        self.shapes = []

    def segment(self, frames, times, expressions, size):
        self.asked.append(list(expressions))
        self.shapes.append(frames.shape)
        return [[self.mask(text, frame, size) for frame in frames] for text in expressions]

    @staticmethod
    def mask(text, frame, size):
        mask = np.zeros(size, bool)
        mask[len(text) % size[0], : 1 + int(frame[..., 1].mean()) // 8] = True  # brightness tells the frames apart
        return masks.encode(mask)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    from evqa.video import write_clip

    clip = tmp_path_factory.mktemp("clip") / "c.mp4"
    frames = np.zeros((12, HEIGHT, WIDTH, 3), np.uint8)
    frames[..., 1] = 20 * np.arange(12)[:, None, None]
    write_clip(clip, frames, 6.0)
    return [{**row, "video": {"path": str(clip), "bytes": None}} for row in benchmark(5)]


EXPRESSIONS = {"e000": ["a box", "the red ball"], "e001": ["a box", " ", "a box"], "e002": [], "e004": ["it"]}


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "answers.jsonl"
    records = [Prediction(e, answer="A", referring_expressions=x, seconds=2.0) for e, x in EXPRESSIONS.items()]
    records.append(Prediction.failure("e003", "refused", "declined"))
    path.write_text("".join(json.dumps(r.to_json()) + "\n" for r in records))
    return path


def go(step, rows, folder, **options):
    return run(step, rows, folder, progress=False, **options).log.predictions()


def test_each_expression_is_kept_beside_the_union(rows, source, tmp_path):
    segmenter = Boxes()
    got = go(SegmentationStep(segmenter, source), rows, tmp_path / "run")
    first = got["e000"]
    assert [one["expression"] for one in first.expression_masks] == ["a box", "the red ball"]
    assert [m["frame"] for m in first.masks] == list(range(12))
    assert first.masks[3]["time"] == pytest.approx(0.5)
    for t, mask in enumerate(first.masks):
        each = [one["masks"][t]["rle"] for one in first.expression_masks]
        assert masks.area(each[0]) >= 1
        assert mask["rle"] == masks.union(each)
        assert masks.area(mask["rle"]) == sum(map(masks.area, each))  # different rows of the frame
    areas = [masks.area(m["rle"]) for m in first.masks]
    assert areas == sorted(areas)
    assert areas[0] < areas[-1]  # frames were not mixed up
    assert [one["expression"] for one in got["e001"].expression_masks] == ["a box"]
    assert got["e002"].masks == []
    assert "no referring expressions" in got["e002"].detail
    assert (got["e003"].status, got["e003"].detail) == ("refused", "declined")
    assert first.answer == "A"
    assert first.usage["answer_seconds"] == 2.0
    assert first.usage["frames_segmented"] == 12
    again = RunLog.open(tmp_path / "run").predictions()["e000"]
    assert again == first  # expression masks survive the file
    assert score(got, rows)["num_samples"] == 5


def test_concat_asks_once(rows, source, tmp_path):
    segmenter = Boxes()
    got = go(SegmentationStep(segmenter, source, mode="concat"), rows, tmp_path / "run")
    assert segmenter.asked[0] == ["a box and the red ball"]
    assert [one["expression"] for one in got["e000"].expression_masks] == ["a box and the red ball"]
    assert joined(["a", "b", "c"]) == "a, b and c"


@pytest.mark.parametrize(("frames", "count"), [("fps:2", 4), ("uniform:1", 1), ("every:5", 3)])
def test_any_rate_gives_a_mask_for_every_frame(rows, source, tmp_path, frames, count):
    segmenter = Boxes()
    got = go(SegmentationStep(segmenter, source, frames=frames), rows[:1], tmp_path / "run")["e000"]
    assert segmenter.shapes[0][0] == count
    full = go(SegmentationStep(Boxes(), source), rows[:1], tmp_path / "full")["e000"]
    assert [m["frame"] for m in got.masks] == list(range(12))
    from evqa.video import Clip, parse_policy

    chosen = parse_policy(frames).positions(Clip(rows[0]["video"]).info)
    for t, mask in enumerate(got.masks):
        nearest = min(chosen, key=lambda c: (abs(c - t), c))
        assert mask["rle"] == full.masks[nearest]["rle"]


def test_batches_and_smaller_frames_change_no_mask_size(rows, source, tmp_path):
    one = go(SegmentationStep(Boxes(), source), rows, tmp_path / "1", batch_size=1)
    many = go(SegmentationStep(Boxes(), source), rows, tmp_path / "4", batch_size=4)
    for entry in one:
        a, b = one[entry].to_json(), many[entry].to_json()
        assert {**a, "seconds": 0} == {**b, "seconds": 0}
    small = Boxes(max_side=32)
    got = go(SegmentationStep(small, source), rows[:1], tmp_path / "s")["e000"]
    assert small.shapes[0][1:] == (24, 32, 3)
    assert got.masks[0]["rle"]["size"] == [HEIGHT, WIDTH]


def test_wrong_shapes_are_refused(rows, source, tmp_path):
    class Short(Boxes):
        def segment(self, *arguments):
            return [track[1:] for track in super().segment(*arguments)]

    class Other(Boxes):
        def segment(self, frames, times, expressions, size):
            return super().segment(frames, times, expressions, (size[0] + 1, size[1]))

    for number, (cls, message) in enumerate([(Short, "a mask per expression"), (Other, "not 48 x 64")]):
        got = go(SegmentationStep(cls(), source), rows[:1], tmp_path / str(number))["e000"]
        assert (got.status, got.masks) == ("adapter_error", [])
        assert message in got.detail


def test_continuing_and_other_settings(rows, source, tmp_path):
    class Dies(Boxes):
        def segment(self, *arguments):
            if len(self.asked) == 1:
                raise KeyboardInterrupt
            return super().segment(*arguments)

    folder = tmp_path / "run"
    assert len(go(SegmentationStep(Dies(), source), rows, folder)) == 1
    again = Boxes()
    assert len(go(SegmentationStep(again, source), rows, folder)) == 5
    assert len(again.asked) == 2  # e000 was done before
    with pytest.raises(Exception, match="adapter.mode"):
        go(SegmentationStep(Boxes(), source, mode="concat"), rows, folder)
    for bad in ({"mode": "both"}, {"frames": "all"}):
        with pytest.raises(AdapterError):
            SegmentationStep(Boxes(), source, **bad)


def test_names():
    assert "sam3" in segmenter_names()
    with pytest.raises(AdapterError, match=r"no segmenter 'sam9'; known: .*sam3"):
        load_segmenter("sam9")


# ------------------------------------------------------------------------------------------------ SAM 3
@pytest.fixture(scope="module")
def sam3(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, "Sam3VideoModel"):
        pytest.skip("this transformers has no SAM 3")
    import tiny_sam3

    return tiny_sam3.save(tmp_path_factory.mktemp("sam3"))


def test_sam3_masks_do_not_depend_on_other_expressions(sam3):
    segmenter = load_segmenter(f"sam3:{sam3}", device="cpu")
    frames = np.random.default_rng(0).integers(0, 255, (5, 48, 64, 3), dtype=np.uint8)
    times = np.arange(5) / 6
    both = segmenter.segment(frames, times, ["the cat", "a dog on it"], (96, 128))
    alone = [segmenter.segment(frames, times, [text], (96, 128))[0] for text in ("the cat", "a dog on it")]
    assert both == alone
    assert [len(track) for track in both] == [5, 5]
    assert all(rle["size"] == [96, 128] for track in both for rle in track)
    assert all(masks.area(rle) for rle in both[0])
    assert both[0] != both[1]  # the words are heard
    none = load_segmenter(f"sam3:{sam3}", device="cpu", threshold=1.0)
    assert all(masks.is_empty(rle) for rle in none.segment(frames, times, ["the cat"], (96, 128))[0])


def test_sam3_from_the_command_line(sam3, tmp_path, capsys, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    answers = tmp_path / "answers"
    assert (
        main(["run", "--model", "chance", "--data", "evqa/st_evidence:sample", "--limit", "2", "--out", str(answers)])
        == 0
    )
    records = RunLog.open(answers).predictions()
    path = tmp_path / "said.jsonl"
    said = [Prediction(e, answer="A", referring_expressions=["a car"] if n else []) for n, e in enumerate(records)]
    path.write_text("".join(json.dumps(p.to_json()) + "\n" for p in said))
    command = ["segment", str(path), "--segmenter", f"sam3:{sam3}", "--option", "device=cpu", "--frames", "uniform:2"]
    command += ["--references", "evqa/st_evidence:sample", "--split", "test[:2]"]
    assert main([*command, "--out", str(tmp_path / "masks")]) == 0
    got = RunLog.open(tmp_path / "masks").predictions()
    assert sum(bool(p.masks) for p in got.values()) == 1
    assert main(["score", str(tmp_path / "masks")]) == 1  # it knows what it was made on; one entry named nothing
    assert "no referring expressions to segment" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "masks")]) == 0
    assert "0 entries run, 2 were recorded before" in capsys.readouterr().out
    assert main(["segment", str(answers), *command[2:], "--mode", "concat"]) == 0
    assert (tmp_path / "answers-sam3-concat" / "manifest.json").is_file()


def test_a_model_that_is_not_there_stops_the_run(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(SetupError, match="cannot be loaded"):
        load_segmenter(f"sam3:{tmp_path / 'none'}", device="cpu")
