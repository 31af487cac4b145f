"""UniPixel in the runner: both tasks from clip to page, batches, kills; with a small random model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("torchvision")
pytest.importorskip("av")

from forced_unipixel import forced  # noqa: E402

import evqa  # noqa: E402
from evqa import masks as rle_masks  # noqa: E402
from evqa.adapters import load_adapter  # noqa: E402
from evqa.cli import main  # noqa: E402
from evqa.engine import run  # noqa: E402
from evqa.errors import AdapterError, SetupError  # noqa: E402
from evqa.models.unipixel import tiny  # noqa: E402
from evqa.models.unipixel.inference_unipixel import UniPixelSegmenter  # noqa: E402
from evqa.runlog import RunLog  # noqa: E402

# Two frames for the language model, three for SAM 2: enough to go every way, and quick.
FAST = {"frames": "uniform:2", "mask_frames": "every:20", "device": "cpu", "max_tokens": 64}


@pytest.fixture(scope="module")
def rows():
    return evqa.load_dataset("st_evidence", "sample", split="test")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    model, processor = tiny()
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def manners():
    """Replies in the form that a trained model gives them."""
    with forced():
        yield


def adapter(checkpoint, **options):
    return load_adapter(f"unipixel:{checkpoint}", **{**FAST, **options})


def records(result):
    return result.log.predictions()


# --------------------------------------------------------------------------------------- both tasks
@pytest.fixture(scope="module")
def singles(checkpoint, rows, tmp_path_factory):
    with forced():
        return records(run(adapter(checkpoint), rows, tmp_path_factory.mktemp("one"), limit=3, progress=False))


def test_one_turn_gives_everything(singles, rows):
    for entry, said in singles.items():
        assert (said.status, said.answer) == ("ok", "B"), said.raw_text
        assert said.segments == [[0.5, 2.0]]
        assert [mask["frame"] for mask in said.masks] == [0, 20, 40]
        assert [mask["time"] for mask in said.masks] == pytest.approx([0, 20 / 6, 40 / 6])
        assert all(mask["rle"]["size"] == [216, 384] for mask in said.masks)
        assert said.usage["objects"] == 2
        assert said.usage["frames_segmented"] == 3
        assert said.usage["frames"] == 2
        assert said.usage["output_tokens"] > 10
        assert said.usage["input_tokens"] > 100
        assert "<|seg|>" in said.raw_text
        assert entry in rows["entry_id"]
    scores = evqa.scoring.score(singles, rows.select(range(3)), bootstrap=0)
    assert scores["num_missing"] == scores["num_failed"] == 0
    assert scores["num_frames"] > 0


def test_batches_say_what_singles_say(checkpoint, rows, singles, tmp_path, manners):
    three = records(run(adapter(checkpoint, batch_size=3), rows, tmp_path / "three", limit=3, progress=False))
    for entry, said in three.items():
        alone = singles[entry]
        assert (said.raw_text, said.answer, said.segments) == (alone.raw_text, alone.answer, alone.segments)
        for a, b in zip(said.masks, alone.masks, strict=True):
            assert (rle_masks.decode(a["rle"]) != rle_masks.decode(b["rle"])).mean() < 1e-4


def test_three_turns(checkpoint, rows, tmp_path, manners):
    result = run(adapter(checkpoint, mode="multi", batch_size=2), rows, tmp_path / "m", limit=2, progress=False)
    for said in records(result).values():
        assert (said.status, said.answer, said.segments) == ("ok", "B", [[0.5, 2.0]]), said
        assert len(said.masks) == 3
        assert said.usage["objects"] == 1
        assert said.raw_text.split("\n\n") == ["B", "[[0.5, 2.0]]", "<|seg|>"]


def test_choices(checkpoint, rows, tmp_path, manners):
    result = run(adapter(checkpoint, batch_size=2), rows, tmp_path / "c", task="mcq", limit=2, progress=False)
    for said in records(result).values():
        assert (said.status, said.answer, said.temporal_choice, said.spatial_choice) == ("ok", "B", "C", "D"), said
        assert not said.masks


def test_option_images_stand_behind_their_letters(checkpoint, rows):
    one = adapter(checkpoint)
    entry = one.prepare(rows[0], "mcq")
    content = one.messages(entry, [one.first_turn(entry, "mcq_spatial")])[0]["content"]
    assert [item["type"] for item in content] == ["video", "text", *["text", "image"] * 4]
    assert [item["text"].strip() for item in content[2::2]] == [f"Image {letter}:" for letter in "ABCD"]
    images = [item["image"] for item in content[3::2]]
    assert images == list(entry.row["spatial_options"])
    sample = one._encode(entry, [one.first_turn(entry, "mcq_spatial")])
    assert len(sample["video_grid_thw"]) == 5
    for missing in (images[:3], [*images[:3], None]):
        entry = one.prepare({**rows[0], "spatial_options": missing}, "mcq")
        with pytest.raises(AdapterError, match=r"option image"):
            one.messages(entry, [one.first_turn(entry, "mcq_spatial")])


def test_what_changes_an_answer_is_in_the_manifest(checkpoint):
    one = adapter(checkpoint).settings()
    json.dumps(one)
    changes = {
        "frames": "fps:1", "mask_frames": "every:2", "min_pixels": 20000, "max_pixels": 30000, "max_side": 100, "clock": "legacy",
        "mode": "multi", "dtype": "bfloat16", "temperature": 0.5, "max_tokens": 9, "attention": "eager",
    }  # fmt: skip
    for name, value in changes.items():
        assert adapter(checkpoint, **{name: value}).settings() != one, name
    assert one["prompts"]["name"] == "evqa-grounded"
    assert one["weights"]


def test_the_clock_option_reaches_the_model(checkpoint, rows):
    legacy, true = (adapter(checkpoint, clock=clock) for clock in ("legacy", "true"))
    for one, steps in ((legacy, None), (true, 1)):
        sample = one._encode(one.prepare(rows[0], "gen"), [one.first_turn(one.prepare(rows[0], "gen"), "gen")])
        assert one._inference.model.config.legacy_clock == (steps is None)
        assert ("grid_times" in sample) == (steps is not None)


def test_sampling_depends_on_the_entries_alone(checkpoint, rows):
    one = adapter(checkpoint, temperature=1.5, seed=3, max_tokens=12)
    entry = one.prepare(rows[0], "gen")
    first = one.predict([entry], "gen")[0].raw_text
    torch.rand(7)
    assert one.predict([entry], "gen")[0].raw_text == first
    other = adapter(checkpoint, temperature=1.5, seed=4, max_tokens=12)
    assert other.predict([other.prepare(rows[0], "gen")], "gen")[0].raw_text != first


def test_clips_of_one_name_are_read_once(checkpoint, rows):
    one = adapter(checkpoint)
    assert one.prepare(rows[0], "gen").clip is one.prepare(rows[1], "gen").clip
    assert one.prepare(rows[0], "mcq").clip.sam_frames is None


# ---------------------------------------------------------------------------------------- failures
def test_a_cut_reply_is_asked_for_again_and_then_a_failure(checkpoint, rows, manners):
    one = adapter(checkpoint, max_tokens=3)
    said = one.predict([one.prepare(rows[0], "gen")], "gen")[0]
    assert said.status == "truncated"
    assert said.answer is None
    assert not said.masks
    assert said.usage["output_tokens"] == 3 + 6


def test_entries_that_cannot_be_read_fail_alone(checkpoint, rows, tmp_path, manners):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a clip")
    data = [rows[0], {**rows[1], "video": {"path": str(broken), "bytes": None}}, {**rows[2], "video": None}]
    found = records(run(adapter(checkpoint, batch_size=3), data, tmp_path / "run", progress=False))
    assert [said.status for said in found.values()] == ["ok", "input_error", "adapter_error"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "/nowhere/at/all"}, SetupError, "cannot be loaded"),
        ({"clock": "yes"}, AdapterError, "clock"),
        ({"frames": "some"}, AdapterError, "frames"),
        ({"mask_frames": "some"}, AdapterError, "mask_frames"),
        ({"mode": "both"}, AdapterError, "mode"),
        ({"dtype": "int8"}, AdapterError, "dtype"),
        ({"device": "abacus"}, AdapterError, "device"),
        ({"temperature": -1}, AdapterError, "temperature"),
        ({"min_pixels": 10**9}, AdapterError, "min_pixels"),
        ({"colour": 1}, AdapterError, "colour"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        load_adapter("unipixel", **{"model": "tiny", "device": "cpu", **options})


# -------------------------------------------------------------------------------------- segmenter
def test_segmenter(checkpoint, rows, manners):
    segmenter = UniPixelSegmenter(checkpoint, device="cpu", frames="uniform:2")
    clip = evqa.video.Clip(rows[0]["video"])
    times = clip.info.timestamps[[0, 12, 30]]
    frames = clip.frames(times, max_side=192)
    both = segmenter.segment(frames, times, ["the blue car", "the yellow taxi"], (216, 384))
    assert [len(rles) for rles in both] == [3, 3]
    assert all(rle["size"] == [216, 384] for rles in both for rle in rles)
    assert segmenter.segment(frames, times, ["the yellow taxi"], (216, 384)) == both[1:]
    json.dumps(segmenter.settings())


def test_segmenter_without_a_mask_in_the_reply(rows):
    segmenter = UniPixelSegmenter("tiny", device="cpu", frames="uniform:2", max_tokens=1)
    frames = np.zeros((2, 54, 96, 3), np.uint8)
    assert segmenter.segment(frames, [0, 1], ["x"], (54, 96)) == [[rle_masks.empty(54, 96)] * 2]


def test_segmenter_is_found_by_its_name():
    segmenters = pytest.importorskip("evqa.segmenters.base", reason="step two comes with another part of evqa")
    segmenter = segmenters.load_segmenter("unipixel:tiny", device="cpu", frames="uniform:2", max_tokens=1)
    assert isinstance(segmenter, segmenters.Segmenter)
    found = segmenter.segment(np.zeros((2, 54, 96, 3), np.uint8), np.array([0.0, 1.0]), ["x"], (54, 96))
    assert found == [[rle_masks.empty(54, 96)] * 2]


# ----------------------------------------------------------------------------------- the whole job
def options_of(checkpoint):
    return [arg for name, value in FAST.items() for arg in ("--option", f"{name}={value}")]


def test_killed_and_resumed_through_the_command_line(checkpoint, tmp_path, manners):
    out = tmp_path / "run"
    command = [
        sys.executable, str(Path(__file__).with_name("forced_unipixel.py")), "run", "--model", f"unipixel:{checkpoint}", "--data", "evqa/st_evidence:sample",
        "--out", str(out), "--limit", "4", *options_of(checkpoint),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    while process.poll() is None and not (
        out.is_dir() and any(path.stat().st_size > 2000 for path in out.rglob("*.jsonl"))
    ):
        time.sleep(0.02)
    process.kill()
    process.wait()
    before = len(RunLog.open(out).predictions())
    assert 0 < before < 4
    assert main(command[2:]) == 0
    log = RunLog.open(out)
    lines = [json.loads(line) for shard in log.shards for line in shard.read_text().splitlines()]
    ids = [line["prediction"]["entry_id"] for line in lines if "prediction" in line]
    assert len(ids) == len(set(ids)) == 4
    assert main(["score", str(out), "--bootstrap", "10"]) == 0
    assert main(["report", str(out), "--bootstrap", "10"]) == 0
    assert (out / "report" / "index.html").is_file()


@pytest.mark.parametrize("task", ["gen", "mcq"])
def test_real_clips_in_the_published_layout(checkpoint, shared, tmp_path, task, capsys, manners):
    data = shared / "data" / "st_evidence_mini"
    out = tmp_path / "run"
    arguments = ["run", "--model", f"unipixel:{checkpoint}", "--data", str(data), "--task", task, "--out", str(out)]
    assert main([*arguments, *options_of(checkpoint)]) == 0
    assert main(["score", str(out), "--protocol", "strict", "--bootstrap", "10"]) == 0
    assert ("J&F" if task == "gen" else "spatial") in capsys.readouterr().out


def test_dry_run_shows_the_request(checkpoint, tmp_path, capsys):
    arguments = [
        "run",
        "--model",
        f"unipixel:{checkpoint}",
        "--data",
        "evqa/st_evidence:sample",
        "--out",
        str(tmp_path / "x"),
    ]
    assert main([*arguments, *options_of(checkpoint), "--dry-run"]) == 0
    shown = SimpleNamespace(**json.loads(capsys.readouterr().out))
    assert "Which vehicle comes into view first?" in shown.text
    assert "<|video_pad|> x 50" in shown.text
    assert shown.times == [0.0, 9.833]
    assert shown.tensors["frames"] == [3, 3, 216, 384]
    assert not (tmp_path / "x").exists()
