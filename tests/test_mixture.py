"""The mixture: each sample as often as it should be, the same everywhere, resumable, and failures that are counted."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from mixture_rows import (
    FRAMES,
    HEIGHT,
    WIDTH,
    chat_row,
    colour,
    dataset,
    image_row,
    instruct_row,
    masklet,
    segmentation_row,
)

from evqa import masks
from evqa.errors import DataError
from evqa.training.budget import ErrorBudget, Failure
from evqa.training.frames import FrameSampling, candidates, generator
from evqa.training.mixture import Draw, Mixture, MixtureConfig, Part
from evqa.training.rows import Filters, scan
from evqa.training.sampler import MixtureSampler


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """7 expressions twice, 5 questions 1.5 times, 6 conversations of which 2 are about an image."""
    folder = tmp_path_factory.mktemp("frames")
    return [
        Part(dataset("segmentation", [segmentation_row(folder, i) for i in range(7)]), "revos", 2),
        Part(dataset("instruct", [instruct_row(folder, i) for i in range(5)]), "st_evidence", 1.5),
        Part(
            dataset("conversation", [*(chat_row(i) for i in range(4)), *(image_row(folder, i) for i in (4, 5))]),
            "llava",
        ),
    ]


CONFIG = MixtureConfig(seed=3, frames=FrameSampling(4))
SIZES = {"evidence": 8, "segmentation": 14, "image": 2, "text": 4}  # round(1.5 * 5) is 8


def epoch_of(mixture, epoch, batch, world):
    """All batches of an epoch: [rank][step] -> draws."""
    samplers = [MixtureSampler(mixture, batch, rank=rank, world_size=world) for rank in range(world)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    out = [list(sampler) for sampler in samplers]
    assert {len(s) for s in samplers} == {len(batches) for batches in out}
    return out


# -------------------------------------------------------------------------------------------- counts
@pytest.mark.parametrize(("batch", "world"), [(1, 1), (3, 1), (2, 2), (4, 3), (50, 2)])
def test_each_sample_comes_as_often_as_it_should_whatever_the_split(parts, batch, world):
    mixture = Mixture(parts, CONFIG)
    assert mixture.type_sizes() == SIZES
    assert len(mixture) == 28
    for epoch in (0, 1):
        ranks = epoch_of(mixture, epoch, batch, world)
        count = Counter()
        for step in zip(*ranks, strict=True):
            assert len({len(places) for places in step}) == 1  # equally many places on every rank
            draws = [draw for places in step for draw in places if draw.position >= 0]
            assert {draw.epoch for draw in draws} == {epoch}
            assert len({mixture.locate(draw)[3] for draw in draws}) == 1  # one data type
            assert len(draws) <= batch * world
            for draw in draws:
                part, row, copy, _ = mixture.locate(draw)
                count[part, row, copy] += 1
        assert set(count.values()) == {1}
        by_part = Counter(part for part, _, _ in count)
        assert by_part == {0: 14, 1: 8, 2: 6}
        assert Counter(row for part, row, _ in count if part == 0) == dict.fromkeys(range(7), 2)
        assert all(1 <= n <= 2 for n in Counter(row for part, row, _ in count if part == 1).values())


def test_the_rest_of_a_fractional_repeat_changes_with_the_epoch(parts):
    mixture = Mixture(parts[1:2], CONFIG)
    chosen = []
    for epoch in range(8):
        rows = [mixture.locate(Draw(epoch, i))[1:3] for i in range(len(mixture))]
        chosen.append(tuple(sorted(row for row, copy in rows if copy == 1)))
    assert len(set(chosen)) > 3
    assert {len(rows) for rows in chosen} == {3}


def test_weights_are_shares_of_an_epoch(parts):
    weighted = [Part(part.rows, part.name, weight=w) for part, w in zip(parts, (2, 1, 1), strict=True)]
    mixture = Mixture(weighted, MixtureConfig(epoch_size=40))
    said = mixture.describe()["parts"]
    assert [said[p.name]["samples"] for p in parts] == [20, 10, 10]
    with pytest.raises(DataError, match="or none has"):
        Mixture([weighted[0], parts[1]], CONFIG)
    with pytest.raises(DataError, match="goes with weights"):
        Mixture(parts, MixtureConfig(epoch_size=5))


def test_a_global_batch_is_the_same_however_it_is_dealt(parts):
    mixture = Mixture(parts, CONFIG)
    splits = []
    for batch, world in ((6, 1), (3, 2), (2, 3)):
        ranks = epoch_of(mixture, 2, batch, world)
        splits.append(
            [[d.position for places in step for d in places if d.position >= 0] for step in zip(*ranks, strict=True)]
        )
    assert splits[0] == splits[1] == splits[2]
    assert splits[0] != [[d.position for d in places] for places in epoch_of(mixture, 3, 6, 1)[0]]


# ------------------------------------------------------------------------------------------- samples
def test_a_sample_holds_what_its_row_says(parts):
    mixture = Mixture(parts, CONFIG)
    place = next(i for i in range(len(mixture)) if mixture.locate(Draw(0, i))[3] == "segmentation")
    sample = mixture[Draw(0, place)]
    assert sample.frames.shape == (4, 24, 32, 3)
    numbers = [round(t * 4) for t in sample.times]
    assert numbers == sorted(numbers)
    for pixels, number, mask in zip(sample.frames, numbers, sample.masks[0], strict=True):
        assert tuple(pixels[0, 0]) == colour(number)
        row = parts[0].rows[0]
        both = [masks.decode(item["masks"][number]["rle"]) for item in row["objects"]]
        np.testing.assert_array_equal(masks.decode(mask), both[0] | both[1])
    assert len(sample.masks) == len(sample.conversation.targets) == 1
    image = next(i for i in range(len(mixture)) if mixture.locate(Draw(0, i))[3] == "image")
    assert mixture[Draw(0, image)].images[0].shape == (8, 10, 3)


def test_evidence_that_is_not_in_a_frame_is_no_mask(parts):
    mixture = Mixture(parts[1:2], MixtureConfig(style="per_object", frames=FrameSampling(FRAMES)))
    sample = mixture[0]
    left, right = sample.masks
    assert [m is None for m in left] == [False] * 4 + [True] * 8  # annotated in its first four frames
    assert all(m is not None for m in right)


def test_frames_nobody_annotated_are_never_shown(tmp_path):
    objects = [{"object_id": "1", "masks": masklet(2, (1, 5, 9))}, {"object_id": "2", "masks": masklet(9, (5, 9, 11))}]
    row = segmentation_row(tmp_path, 0, objects=objects)
    assert candidates(row, ((0, 1),)) == [5, 9]
    assert candidates(row, ((1,),)) == [5, 9, 11]
    objects[1]["masks"] = masklet(9, (0,))
    with pytest.raises(DataError, match="no frame in which every object"):
        candidates(row, ((0, 1),))


def test_frames_and_words_depend_on_the_epoch_and_the_repeat_and_nothing_else(parts):
    one, other = Mixture(parts, CONFIG), Mixture(parts, CONFIG)
    order = list(range(len(one)))
    forward = {i: one[Draw(1, i)] for i in order}
    backward = {i: other[Draw(1, i)] for i in reversed(order)}
    drawn = {}
    for i in order:
        assert forward[i].times == backward[i].times
        assert forward[i].conversation == backward[i].conversation
        part, row, copy, _ = one.locate(Draw(1, i))
        if part == 0:
            drawn.setdefault(row, []).append((copy, forward[i].times, one[Draw(2, i)].times))
    assert any(a[1] != b[1] for a, b in drawn.values())  # the second repeat shows other frames
    assert any(now != later for pair in drawn.values() for _, now, later in pair)
    asked = {str(forward[i].conversation.messages[0]["content"][-1]["text"])[:12] for i in order}
    assert len(asked) > 3


def test_the_draws_are_the_same_in_every_version(parts):
    """Written down once: a change of this would change what a resumed run sees."""
    assert generator("frames", 3, 1, "x").random(2).tolist() == [0.503460991051743, 0.9118118566254214]
    assert FrameSampling(4).choose(range(100), generator("frames", 0)) == [5, 28, 58, 92]


@pytest.mark.parametrize("total", [1, 3, 8, 9, 100])
@pytest.mark.parametrize("policy", ["random", "uniform"])
def test_choice_of_frames(total, policy):
    for number in range(20):
        chosen = FrameSampling(8, policy).choose(range(total), generator(number))
        assert len(chosen) == min(8, total)
        assert chosen == sorted(set(chosen))
        if policy == "random" and total > 8:
            assert all(i * total // 8 <= c < (i + 1) * total // 8 for i, c in enumerate(chosen))
        if policy == "uniform":
            assert chosen[0] == 0
            assert chosen[-1] == total - 1
    varying = {len(FrameSampling((2, 5)).choose(range(50), generator(n))) for n in range(60)}
    assert varying == {2, 3, 4, 5}


@pytest.mark.parametrize(
    "settings", [{"count": 0}, {"count": (5, 2)}, {"count": True}, {"policy": "best"}, {"max_side": 0}]
)
def test_sampling_that_is_none_is_refused(settings):
    with pytest.raises(ValueError, match="count is|policy is|max_side is|tracked is"):
        FrameSampling(**settings)


def test_large_frames_are_shrunk_and_masks_are_not(parts):
    mixture = Mixture(parts[:1], MixtureConfig(frames=FrameSampling(2, max_side=16)))
    sample = mixture[0]
    assert sample.frames.shape == (2, 12, 16, 3)
    assert sample.masks[0][0]["size"] == [24, 32]


# ------------------------------------------------------------------------------------------- filters
def test_filters_say_what_they_left_out(tmp_path):
    rows = dataset(
        "segmentation",
        [
            segmentation_row(tmp_path, 0),
            segmentation_row(tmp_path, 1, objects=None),
            segmentation_row(tmp_path, 2, objects=[]),
            segmentation_row(tmp_path, 3, objects=[{"object_id": "1", "masks": None}]),
            segmentation_row(tmp_path, 4, num_frames=900),
            segmentation_row(tmp_path, 5, num_frames=2),
            segmentation_row(tmp_path, 6, kind="question", answer="so many words here"),
            segmentation_row(
                tmp_path, 7, objects=[{"object_id": "1", "masks": []}, {"object_id": "2", "masks": masklet(1)}]
            ),
        ],
    )
    filters = Filters(min_frames=3, max_frames=500, max_words=3)
    kept, types, dropped = scan(rows, filters)
    assert kept.tolist() == [0, 7]
    assert len(set(types.tolist())) == 1
    assert dropped == {"no masks": 3, "too many frames": 1, "too few frames": 1, "too many words": 1}
    # The same, told row by row, through an index and from a plain list.
    assert scan(list(rows), filters)[0].tolist() == [0, 7]
    assert scan(rows.select([7, 1, 0]), filters)[0].tolist() == [0, 2]
    talks = dataset("conversation", [chat_row(0, duration=10.0), chat_row(1, duration=400.0), chat_row(2)])
    assert scan(talks, Filters(max_seconds=300))[0].tolist() == [0, 2]
    asked = dataset("instruct", [instruct_row(tmp_path, 0), instruct_row(tmp_path, 1, answer_index=None)])
    assert scan(asked, Filters())[2] == {"the answer is none of the options": 1}


def test_a_mixture_of_nothing_is_refused(tmp_path):
    rows = dataset("segmentation", [segmentation_row(tmp_path, 0, objects=None)])
    with pytest.raises(DataError, match="the mixture is empty.*no masks"):
        Mixture([Part(rows, "mevis")], CONFIG)
    with pytest.raises(DataError, match="called 'mevis'"):
        Mixture([Part(rows, "mevis"), Part(rows, "mevis")], CONFIG)


# ------------------------------------------------------------------------------------------ failures
def test_a_sample_that_fails_is_a_record_and_no_other_sample(tmp_path):
    rows = [segmentation_row(tmp_path / str(i), i) for i in range(3)]
    (tmp_path / "1" / "00003.png").unlink()
    (tmp_path / "2" / "00003.png").write_bytes(b"no image")
    mixture = Mixture([Part(dataset("segmentation", rows), "revos")], MixtureConfig(frames=FrameSampling(FRAMES)))
    good, missing, broken = (mixture[i] for i in range(3))
    assert good.entry_id == "clip/0"
    assert isinstance(missing, Failure)
    assert (missing.entry_id, missing.corpus, missing.data_type) == ("clip/1", "revos", "segmentation")
    assert "00003.png" in missing.reason
    assert "not a readable image" in broken.reason
    assert mixture[Draw(0, -1)] is None
    with pytest.raises(IndexError):
        mixture[3]


def test_the_budget_counts_names_and_stops(tmp_path):
    budget = ErrorBudget(0.1, min_tried=20, log=tmp_path / "errors.jsonl")
    bad = Failure("clip/1", "revos", "there is no such image", "segmentation")
    budget.add(8, [bad])
    budget.add(8, [bad])  # 2 of 16: too few tried to judge
    again = ErrorBudget(0.1, min_tried=20, log=tmp_path / "errors.jsonl")
    again.load_state_dict(json.loads(json.dumps(budget.state_dict())))
    again.add(8)  # 2 of 24
    with pytest.raises(DataError, match=r"3 of 26 samples failed \(revos 3\).*10.00%.*clip/1: there is no such image"):
        again.add(2, [bad])
    assert len((tmp_path / "errors.jsonl").read_text().splitlines()) == 3
    with pytest.raises(DataError, match="limit of 1 samples"):
        ErrorBudget(1.0, max_count=1).add(8, [bad, bad])
    for wrong in ({"max_fraction": 2}, {"max_count": -1}, {"min_tried": 0}):
        with pytest.raises(ValueError, match="a budget is"):
            ErrorBudget(**wrong)


# -------------------------------------------------------------------------------------------- resume
@pytest.mark.parametrize("stop", [0, 1, 4, 9])
def test_a_sampler_goes_on_in_the_middle(parts, stop):
    mixture = Mixture(parts, CONFIG)
    whole = MixtureSampler(mixture, 3)
    whole.set_epoch(1)
    batches = list(whole)
    stopped = MixtureSampler(mixture, 3)
    stopped.set_epoch(1)
    running = iter(stopped)
    seen = [next(running) for _ in range(stop)]
    state = json.loads(json.dumps(stopped.state_dict()))
    resumed = MixtureSampler(Mixture(parts, CONFIG), 3)
    resumed.load_state_dict(state)
    resumed.set_epoch(1)
    assert seen + list(resumed) == batches
    resumed.set_epoch(2)
    assert len(list(resumed)) == len(resumed)
    with pytest.raises(DataError, match="global_batch was 3, is 4"):
        MixtureSampler(mixture, 4).load_state_dict(state)


# --------------------------------------------------------------------------------------------- files
def test_a_mixture_from_a_file(tmp_path):
    path = tmp_path / "mix.yaml"
    path.write_text(
        "name: small\nseed: 5\nstyle: per_object\nframes: {count: [2, 4]}\nfilters: {max_words: 9}\n"
        "errors: {max_fraction: 0.2}\nparts:\n  - {name: st_evidence, config: sample, split: test, repeat: 2}\n"
    )
    mixture = Mixture.from_yaml(path)
    assert len(mixture) == 96
    assert mixture.config.frames.count == (2, 4)
    sample = mixture[0]
    assert sample.frames.shape[1:] == (216, 384, 3)
    assert 2 <= len(sample.frames) <= 4
    assert "Spatial Evidence: <|seg|>" in sample.conversation.messages[1]["content"][0]["text"]
    said = mixture.describe()
    assert said["parts"]["st_evidence/sample/test"] == {"rows": 48, "samples": 96, "left_out": {}}
    assert said["templates"]["name"] == "evqa-training"
    assert Mixture.from_yaml(path, seed=6)[0].times != sample.times


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parts: []", "a list of parts"),
        ("- a", "a list of parts"),
        ("parts: [{config: x}]", "a part has a name"),
        ("parts: [{name: revos}]\nfrmes: {}", "unknown fields \\['frmes'\\]"),
        ("parts: [{name: revos}]\nframes: {count: -1}", "count is a number"),
        ("parts: [{name: revos}]\nfilters: {max_cats: 1}", "max_cats"),
        ("parts: [{name: revos}]\nstyle: loud", "style must be"),
        ("parts: [{name: revos}]\nerrors: {max_fraction: 3}", "errors: a budget"),
        ("parts: [", "cannot be read"),
    ],
)
def test_bad_mixture_files_are_refused(tmp_path, text, message):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        MixtureConfig.read(tmp_path / "bad.yaml")
    assert caught.value.file == str(tmp_path / "bad.yaml")


def test_the_ready_mixtures_can_be_read():
    folder = Path(__file__).parents[1] / "recipes" / "configs" / "mixtures"
    files = sorted(folder.glob("*.yaml"))
    assert files
    from evqa.corpora.base import builder_class

    for file in files:
        _, parts = MixtureConfig.read(file)
        for part in parts:
            assert builder_class(part["name"])
    _, parts = MixtureConfig.read(folder / "st_evidence.yaml")
    repeats = {part["name"] + "/" + part.get("config", ""): part["repeat"] for part in parts}
    assert repeats == {
        "st_evidence/instruct_mask": 2, "st_evidence/instruct_qa": 2, "revos/": 5, "mevis/": 5, "lv_vis/": 3,
        "ref_youtube_vos/": 5, "ref_davis17/": 10, "ref_sav/": 3, "groundmore/": 3, "vicas/": 3,
        "llava_videogpt_plus/": 1,
    }  # fmt: skip


# ------------------------------------------------------------------------------------- torch, streams
def test_streams_keep_the_promises(parts):
    torch = pytest.importorskip("torch")
    from evqa.training.streaming import MixtureStream

    streams = [
        Part(part.rows.to_iterable_dataset(), part.name, repeat) for part, repeat in zip(parts, (2, 1, 1), strict=True)
    ]

    def epoch(rank, world, *, workers=0, skip=0, number=0, batch=2):
        stream = MixtureStream(streams, CONFIG, batch_size=batch, rank=rank, world_size=world, shuffle_buffer=4)
        stream.load_state_dict(stream.state_dict(skip) | {"epoch": number})
        loader = torch.utils.data.DataLoader(stream, batch_size=None, collate_fn=list, num_workers=workers)
        return [[None if s is None else (s.entry_id, s.data_type, s.times) for s in batch] for batch in loader]

    alone = epoch(0, 1, batch=4)
    entries = Counter(s[0] for batch in alone for s in batch if s)
    assert sum(entries.values()) == 14 + 5 + 6
    assert all(entries[f"clip/{i}"] == 2 for i in range(7))
    two = [epoch(rank, 2) for rank in (0, 1)]
    joined = [[s for part in step for s in part if s] for step in zip(*two, strict=True)]
    assert joined == [[s for s in batch if s] for batch in alone]
    assert all(len({s[1] for s in batch}) == 1 for batch in joined)
    assert epoch(0, 2, workers=2) == two[0]
    assert epoch(0, 2, workers=2, skip=3) == two[0][3:]
    assert epoch(0, 1, number=1, batch=4) != alone
    half = Mixture(parts, CONFIG)
    with pytest.raises(DataError, match="repeats"):
        MixtureStream([Part(streams[0].rows, "x", weight=1)], CONFIG, batch_size=2)
    assert half[0].entry_id  # rows that can be looked up are untouched by being streamed


_SCRIPT = """
import json, os, sys
import torch
import torch.distributed as dist
from evqa.training.mixture import Mixture
from evqa.training.sampler import MixtureSampler

def main():
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    mixture = Mixture.from_yaml(sys.argv[1], sys.argv[2])
    sampler = MixtureSampler(mixture, 2, rank=rank, world_size=world)
    seen = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        loader = torch.utils.data.DataLoader(mixture, batch_sampler=sampler, num_workers=2, collate_fn=list)
        for batch in loader:
            kinds = [None] * world
            dist.all_gather_object(kinds, [s.data_type for s in batch if s])
            assert len({k for kind in kinds for k in kind}) == 1, kinds
            seen += [(epoch, s.corpus, s.entry_id, s.data_type, getattr(s, "times", "failed")) for s in batch if s]
    everything = [None] * world
    dist.all_gather_object(everything, seen)
    if rank == 0:
        with open(sys.argv[3], "w") as file:
            json.dump([item for part in everything for item in part], file)
    dist.destroy_process_group()

main()
"""


def test_all_corpora_two_epochs_two_ranks_two_workers(tmp_path, shared):
    """Every published layout at hand, mixed; each sample as often as it should be, and twice the same."""
    pytest.importorskip("torch")
    data = shared / "data"
    names = [
        ("revos", data / "corpora" / "data" / "revos", 2), ("mevis", data / "corpora" / "data" / "mevis", 1),
        ("lv_vis", data / "corpora" / "data" / "lvvis", 1), ("groundmore", data / "corpora" / "data" / "groundmore", 2),
        ("ref_davis17", data / "corpora" / "data" / "ref_davis17", 1), ("vicas", data / "corpora" / "data" / "vicas", 1),
        ("ref_youtube_vos", data / "corpora" / "data" / "ref_youtube_vos", 1),
        ("ref_sav", data / "corpora" / "data", 1),
        ("llava_instruct", f"{data}/llava_instruct, files: llava_style_sample.json", 1),
        ("videogpt_plus", f"{data}/videogpt_plus, files: video_style_sample.json, media_dir: {data}/videos", 1),
    ]  # fmt: skip
    lines = [f"  - {{name: {name}, data_dir: {folder}, repeat: {repeat}}}" for name, folder, repeat in names]
    lines.append("  - {name: st_evidence, config: sample, split: test, repeat: 0.5}")
    path = tmp_path / "all.yaml"
    path.write_text("seed: 1\nframes: {count: 2, max_side: 64}\nparts:\n" + "\n".join(lines) + "\n")
    (tmp_path / "script.py").write_text(_SCRIPT)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=0", "--nnodes=1",
        "--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0",
        str(tmp_path / "script.py"), str(path), str(tmp_path),
    ]  # fmt: skip
    mixture = Mixture.from_yaml(path, tmp_path)
    done = subprocess.run([*command, str(tmp_path / "out.json")], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads((tmp_path / "out.json").read_text())
    expected = Counter()
    for epoch in range(2):
        for place in range(len(mixture)):
            part, row, _, kind = mixture.locate(Draw(epoch, place))
            expected[epoch, mixture.parts[part].rows[row]["entry_id"], kind] += 1
    assert Counter((epoch, entry, kind) for epoch, _, entry, kind, _ in seen) == expected
    assert len({corpus for _, corpus, _, _, _ in seen}) == 11
    # What a sample holds is what this process makes of it, without workers and ranks.
    by_entry = {}
    for epoch, _, entry, _, times in seen:
        by_entry.setdefault((epoch, entry), []).append(times)
    for place in range(0, len(mixture), 7):
        sample = mixture[Draw(1, place)]
        assert getattr(sample, "times", "failed") in by_entry[1, sample.entry_id]


def test_sam_may_see_fewer_frames_and_masks_are_of_those(parts):
    mixture = Mixture(parts[:1], MixtureConfig(frames=FrameSampling(FRAMES, tracked=3)))
    sample = mixture[0]
    assert len(sample.frames) == FRAMES
    assert len(sample.tracked) == len(sample.masks[0]) == 3
    for place, mask in zip(sample.tracked, sample.masks[0], strict=True):
        truth = [masks.decode(item["masks"][place]["rle"]) for item in parts[0].rows[0]["objects"]]
        np.testing.assert_array_equal(masks.decode(mask), truth[0] | truth[1])


def test_frames_that_are_decoded_already(tmp_path):
    frames = np.stack([np.full((HEIGHT, WIDTH, 3), colour(i), np.uint8) for i in range(FRAMES)])
    np.save(tmp_path / "clip.npy", frames)
    row = segmentation_row(tmp_path / "frames", 0, frames=None, pixels=str(tmp_path / "clip.npy"), fps=4.0)
    sample = Mixture([Part([row], "drawn")], CONFIG)[0]
    np.testing.assert_array_equal(sample.frames, frames[sample.chosen])
    assert sample.times == [number / 4 for number in sample.chosen]
    row["pixels"] = str(tmp_path / "gone.npy")
    assert "gone.npy" in Mixture([Part([row], "drawn")], CONFIG)[0].reason


def test_frames_can_be_chosen_without_being_read(parts):
    read = Mixture(parts[:2], CONFIG)
    chosen = Mixture(parts[:2], dataclasses.replace(CONFIG, read_frames=False))
    for place in range(len(read)):
        assert chosen[place].frames is None
        assert chosen[place].chosen == read[place].chosen
        assert chosen[place].masks == read[place].masks


def test_published_rows_bring_their_frames_along(tmp_path):
    """Rows and frames as Parquet, as a publication has them: read by plain ``datasets``, without the original files."""
    rows = [segmentation_row(tmp_path / "frames", i) for i in range(2)]
    expected = Mixture([Part(dataset("segmentation", rows), "revos")], CONFIG)[0]
    home, names = tmp_path / "published", rows[0]["frames"]["names"]
    images = [{"bytes": (tmp_path / "frames" / name).read_bytes(), "path": name} for name in names]
    video = {"corpus": "revos", "video_id": "clip", "names": names, "images": images}
    for row in rows:
        row["frames"] = {**row["frames"], "folder": "clip"}  # what is left of the path
    for config, table in (("default", dataset("segmentation", rows)), ("frames", dataset("frames", [video]))):
        (home / config).mkdir(parents=True)
        table.to_parquet(home / config / "train-00000.parquet")
    configs = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}/*.parquet\n"
        for name in ("default", "frames")
    )
    (home / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    (tmp_path / "mix.yaml").write_text("seed: 3\nframes: {count: 4}\nparts: [{name: revos, parquet: published}]\n")
    for folder in (tmp_path / "frames").iterdir():
        folder.unlink()
    sample = Mixture.from_yaml(tmp_path / "mix.yaml")[0]
    np.testing.assert_array_equal(sample.frames, expected.frames)
    assert sample.masks == expected.masks
    small = Mixture.from_yaml(tmp_path / "mix.yaml", frames=FrameSampling(2, max_side=16))[0]
    assert small.frames.shape == (2, 12, 16, 3)
    (tmp_path / "mix.yaml").write_text("parts: [{name: revos, parquet: published, config: other}]\n")
    with pytest.raises(DataError, match="give the config: default"):
        Mixture.from_yaml(tmp_path / "mix.yaml")
