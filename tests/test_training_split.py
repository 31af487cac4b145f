"""The generated training split: the sample's world, other clips, read by the same builders, and checked in its pixels."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evqa import masks
from evqa.training.mixture import Draw, Mixture

ROOT = Path(__file__).resolve().parents[1]
GENERATOR = ROOT / "dataset_scripts" / "st_evidence" / "sample"


def make(out: Path, *options: str) -> None:
    pytest.importorskip("av")
    command = [sys.executable, str(GENERATOR / "make_training.py"), "--out", str(out), "--samples", "1", *options]
    subprocess.run(command, check=True, capture_output=True, timeout=300)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("root")
    make(root / "shapes", "--clips", "5", "--processes", "1")
    return root


def test_the_ready_mixture_reads_it(shapes):
    mixture = Mixture.from_yaml(ROOT / "recipes" / "configs" / "mixtures" / "tiny_shapes.yaml", shapes)
    entries = json.loads((shapes / "shapes" / "entries.json").read_text("utf-8"))
    assert mixture.type_sizes() == {"evidence": len(entries), "video": 10}
    assert {entry["video_id"].split("_")[0] for entry in entries} == {"street", "reef", "orchard", "harbour", "room"}
    for place in range(len(entries)):
        sample = mixture[Draw(0, place)]
        entry = next(e for e in entries if e["entry_id"] == sample.entry_id)
        assert len(sample.frames) == entry["num_frames"]
        assert len(sample.tracked) == 4
        reply = sample.conversation.messages[1]["content"][0]["text"]
        asked = sample.conversation.messages[0]["content"][1]["text"]
        seen, said, letter = re.match(r"(Seen: .+?\]\]\.) The evidence shows (.+?)\. Answer: ([A-Z])\.", reply).groups()
        assert seen == entry["rationale"]
        assert said == entry["answer"]
        assert f"({letter}) {said}\n" in asked  # whatever the order of the options
    talk = mixture[Draw(0, len(entries))]
    assert talk.frames.shape[1:] == (216, 384, 3)
    assert talk.conversation.messages[-2]["content"][0]["text"] == "What happens, and when?"


def test_the_course_of_a_clip_says_when_its_evidence_is_seen(shapes):
    """The rationale of a question about one object's visits holds just these, in order of time."""
    entries = json.loads((shapes / "shapes" / "entries.json").read_text("utf-8"))
    compared = 0
    for entry in entries:
        told = re.findall(r"([^\[\],][^\[\]]*?) (\[\[.+?\]\])", entry["rationale"].removeprefix("Seen: "))
        spans = {name.strip(): json.loads(text) for name, text in told}
        assert [min(own) for own in spans.values()] == sorted(min(own) for own in spans.values())
        if entry["question"].startswith("In which half"):
            assert np.allclose(spans[entry["evidence"][0]], entry["segments"], atol=0.051)
            compared += 1
    assert compared


def test_what_an_entry_says_can_be_seen(shapes):
    """The evidence is in the picture where its mask is: it looks different there when it is gone."""
    mixture = Mixture.from_yaml(ROOT / "recipes" / "configs" / "mixtures" / "tiny_shapes.yaml", shapes)
    compared = 0
    for row in mixture.parts[0].rows:
        if not row["question"].startswith("In which half"):
            continue
        seen = {mask["frame"]: masks.decode(mask["rle"]) for mask in row["masks"]}
        inside = {f for start, end in row["segments"] for f in range(round(start * 6), round(end * 6))}
        assert set(seen) == inside
        gone = [frame for frame in range(row["num_frames"]) if frame not in seen]
        frame = max(seen, key=lambda f: seen[f].sum())
        where = seen[frame]
        place = next(i for i in range(len(mixture)) if mixture[Draw(0, i)].entry_id == row["entry_id"])
        pixels = mixture[Draw(0, place)].frames.astype(int)
        change = np.abs(pixels[frame] - pixels[gone[0]]).mean(-1)
        assert change[where].mean() > 3 * change[~where].mean()
        half = row["num_frames"] // 2
        early, late = any(f < half for f in seen), any(f >= half for f in seen)
        said = {
            (True, False): "only the first half",
            (False, True): "only the second half",
            (True, True): "both halves",
        }
        assert row["answer"] == said[early, late]
        compared += 1
    assert compared


def test_a_clip_depends_on_its_seed_and_number_alone(shapes, tmp_path):
    make(tmp_path / "one", "--clips", "1", "--first", "3", "--processes", "1")
    make(tmp_path / "other", "--clips", "1", "--first", "3", "--seed", "2", "--processes", "1")
    whole = json.loads((shapes / "shapes" / "entries.json").read_text("utf-8"))
    one, other = (json.loads((tmp_path / name / "entries.json").read_text("utf-8")) for name in ("one", "other"))
    assert one == [entry for entry in whole if entry["video_id"] == one[0]["video_id"]]
    assert [entry["segments"] for entry in one] != [entry["segments"] for entry in other]
    name = f"videos/{one[0]['video_id']}.mp4"
    assert (tmp_path / "one" / name).read_bytes() == (shapes / "shapes" / name).read_bytes()
