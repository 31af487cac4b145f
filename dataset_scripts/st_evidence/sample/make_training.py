"""Make a training split of the sample's world: the same scenes with other casts, times and ways.

    python dataset_scripts/st_evidence/sample/make_training.py --out shapes/ --clips 900 --seed 1

Writes what ``load_dataset("evqa/st_evidence", "sample", data_dir="shapes/", split="train")`` reads, and conversations
about the same clips in the form of VideoGPT+ (``talks.json``): what happens when, in words. Clips are made by several
processes and are the same whatever their number; a clip depends on ``--seed`` and its own number alone.

Besides the sample's own questions, each clip is asked in which half of it an object can be seen, so that every object
gets its share of times and masks. A question that its clip leaves in doubt is left out; a clip that leaves all of them
in doubt is drawn again.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import functools
import json
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import make_sample
import numpy as np
import options
import questions
import render
import variations
from facts import Facts, Span
from scenes import FPS, Ask

#: Draws of a clip before we give up on its number: far fewer are needed.
TRIES = 200

#: Width and height of clips that are kept as arrays.
DECODED_SIZE = (256, 144)

TIMELINE = "What happens, and when?"

#: An object is said to be behind another if that hides it for more frames than this.
HIDDEN = 5

HALVES = ("only the first half", "only the second half", "both halves")


def main() -> None:
    """Write a training split into a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--clips", type=int, default=900, help="how many; a ninth of them of each scene")
    parser.add_argument("--first", type=int, default=0, help="number of the first clip, to add to an earlier split")
    parser.add_argument("--seed", default="1", help="of everything that is drawn")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--samples", type=int, choices=(1, 2, 4), default=2, help="per pixel and side; the sample has 4"
    )
    arguments = parser.parse_args()
    make(
        arguments.out, arguments.clips, seed=arguments.seed, first=arguments.first, processes=arguments.processes,
        samples=arguments.samples,
    )  # fmt: skip


def make(
    out: Path, clips: int, *, seed: str = "1", first: int = 0, processes: int = 1, samples: int = 2
) -> dict[str, int]:
    """Write a training split; what was in the folder is replaced. Returns how many clips and questions it has."""
    shutil.rmtree(out, ignore_errors=True)
    (out / "videos").mkdir(parents=True)
    entries: list[dict[str, Any]] = []
    masks: dict[str, Any] = {}
    talks: list[dict[str, Any]] = []
    for made in make_clips(out, range(first, first + clips), seed=seed, processes=processes, samples=samples):
        entries += made.entries
        masks |= made.masks
        talks.append(made.talk)
    make_sample.write_gzip(out / "masks.json.gz", masks)
    (out / "talks.json").write_text(json.dumps(talks, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / "entries.json").write_text(json.dumps(entries, ensure_ascii=False) + "\n", encoding="utf-8")  # last
    counts = {"clips": clips, "questions": len(entries)}
    print(f"{clips} clips, {len(entries)} questions in {out}")
    return counts


@dataclasses.dataclass
class Made:
    """One clip: its entries, the masks of each, a conversation about it, and the names of its objects."""

    entries: list[dict[str, Any]]
    masks: dict[str, Any]
    talk: dict[str, Any]
    names: list[str]


def make_clips(
    out: Path, numbers: Sequence[int], *, seed: str, processes: int, samples: int, decoded: bool = False
) -> Iterator[Made]:
    """Make clips in several processes, in the order of their numbers; ``decoded``: arrays instead of videos."""
    work = functools.partial(make_clip, out, seed, samples, decoded)
    with concurrent.futures.ProcessPoolExecutor(processes) as pool:
        yield from pool.map(work, numbers, chunksize=4)


def make_clip(out: Path, seed: str, samples: int, decoded: bool, number: int) -> Made:
    """Draw, check, ask and write one clip.

    Args:
        out: Where ``videos/<name>.mp4`` goes, or with ``decoded`` an array, ``videos/<name>.npy``, uint8
            ``[frames, 144, 256, 3]``.
        seed, number: Tell everything that is drawn.
        samples: Per pixel and side.
        decoded: Arrays instead, and beside each clip ``videos/<name>_owners.npy``, uint8 ``[frames, 216, 384]``: which
            object is seen where, by its place in ``names`` plus one.
    """
    render.SAMPLES, render.STEP = samples, render.GRID // samples
    family = list(variations.FAMILIES)[number % len(variations.FAMILIES)]
    name = f"{family}_{seed}_{number:06d}"
    for attempt in range(TRIES):
        rng = random.Random(f"{seed}/{number}/{attempt}")
        facts = Facts(variations.draw_scene(family, name, rng), pictures=DECODED_SIZE if decoded else None)
        drafts = [draft for ask in facts.scene.asks if (draft := clear(facts, ask, rng)) is not None]
        if drafts:
            break
    else:
        raise RuntimeError(f"{name}: no clear question in {TRIES} draws")
    talk = conversation(facts, drafts, rng)
    drafts += halves(facts, rng)
    told = course(facts)
    entries = [entry(facts, draft, k, told, rng) for k, draft in enumerate(drafts, start=1)]
    if decoded:
        np.save(out / "videos" / f"{name}.npy", facts.pictures)
        np.save(out / "videos" / f"{name}_owners.npy", facts.owners)
    else:
        from encode import write_clip

        base = facts.scene.render_backdrop()
        frames = (facts.scene.render(i, base) for i in range(facts.scene.frames))
        write_clip(out / "videos" / f"{name}.mp4", (f.image() for f in frames), int(FPS), preset="veryfast")
    found = {e["entry_id"]: make_sample.masks(facts, d.evidence) for e, d in zip(entries, drafts, strict=True)}
    return Made(entries, found, talk, facts.scene.names)


def conversation(facts: Facts, drafts: list[questions.Draft], rng: random.Random) -> dict[str, Any]:
    """Questions without options, and at last everything that can be seen coming or going, in order of time."""
    turns = [(draft.question, f"{draft.answer} {_times(draft.spans)}") for draft in options.shuffled(drafts, rng)]
    if told_course := course(facts):
        turns.append((TIMELINE, told_course))
    told = [("human", turns[0][0]), ("gpt", turns[0][1])]
    for question, answer in turns[1:]:
        told += [("human", question), ("gpt", answer)]
    values = [{"from": who, "value": text} for who, text in told]
    values[0]["value"] = f"<video>\n{values[0]['value']}"
    return {"id": facts.scene.video_id, "video": f"videos/{facts.scene.video_id}.mp4", "conversations": values}


def course(facts: Facts) -> str:
    """Everything that comes, goes, hides or happens, with its seconds, in order of time; empty where nothing does."""
    found: list[tuple[list[Span], str]] = []
    for name in facts.scene.names:
        if (spans := facts.seen(name)) and sum(last - first + 1 for first, last in spans) < 0.95 * facts.scene.frames:
            found.append((spans, name))
        behind: dict[str, list[Span]] = {}
        for span in facts.hidden(name):
            if span[1] - span[0] >= HIDDEN and span[1] < facts.scene.frames - 1:
                around = [s for s in facts.behind(name, facts.hider(name, span)) if s[0] <= span[0] and span[1] <= s[1]]
                behind.setdefault(facts.hider(name, span), []).extend(around or [span])
        found += [(spans, f"{name} behind {other}") for other, spans in behind.items()]
    done: dict[str, list[Span]] = {}
    for what, span in facts.doing_any():
        done.setdefault(what, []).append(span)
    known = [(spans, name) for spans, name in found]
    # A shooting star is seen just when it crosses the sky: that is not said twice.
    found += [(s, what) for what, s in done.items() if not any(s == t and what.startswith(n) for t, n in known)]
    return ", ".join(f"{text} {_times(spans)}" for spans, text in sorted(found))


def _times(spans: list[Span]) -> str:
    return "[" + ", ".join(f"[{start:.1f}, {end:.1f}]" for start, end in make_sample.seconds(spans)) + "]"


def clear(facts: Facts, ask: Ask, rng: random.Random) -> questions.Draft | None:
    """A question's draft; ``None`` where the clip leaves it in doubt, or nobody comes before or after."""
    try:
        return questions.draft(facts, ask, rng)
    except (ValueError, IndexError):  # UnclearError is a ValueError; index() of a list raises one too
        return None


def halves(facts: Facts, rng: random.Random) -> list[questions.Draft]:
    """For up to two objects that come or go: in which half of the clip each can be seen."""
    middle = facts.scene.frames // 2
    found = []
    for thing in options.shuffled(facts.scene.things, rng):
        spans = facts.seen(thing.name)
        seen = sum(last - first + 1 for first, last in spans)
        if not 3 <= seen < 0.9 * facts.scene.frames or any(abs(edge - middle) < 3 for span in spans for edge in span):
            continue  # always there, hardly there, or too close to the middle to tell
        early, late = any(first < middle for first, _ in spans), any(last >= middle for _, last in spans)
        answer = HALVES[2] if early and late else HALVES[0] if early else HALVES[1]
        question = f"In which half of the clip can {thing.name} be seen?"
        found.append(questions.Draft(question, "when", list(HALVES), answer, spans, [thing.name]))
    return found[:2]


def entry(facts: Facts, draft: questions.Draft, k: int, told: str, rng: random.Random) -> dict[str, Any]:
    """An entry as the sample has it, its letter drawn instead of dealt out, and with the course of its clip."""
    if draft.numeric:
        letter = int(rng.random() * min(5, int(draft.answer) + 1))
        candidates = [str(int(draft.answer) - letter + i) for i in range(5)]
    else:
        candidates = options.shuffled(draft.candidates, rng)
    return {
        "entry_id": f"{facts.scene.video_id}_{k}",
        "video_id": facts.scene.video_id,
        "video": f"videos/{facts.scene.video_id}.mp4",
        "fps": FPS,
        "num_frames": facts.scene.frames,
        "duration": round(facts.scene.frames / FPS, 3),
        "height": render.HEIGHT,
        "width": render.WIDTH,
        "question": draft.question,
        "question_type": draft.question_type,
        "candidates": candidates,
        "answer": draft.answer,
        "segments": make_sample.seconds(draft.spans),
        "rationale": f"Seen: {told}." if told else None,
        "evidence": draft.evidence,
        "temporal_options": [],
        "temporal_answer": None,
        "spatial_options": [],
        "spatial_answer": None,
    }


if __name__ == "__main__":
    main()
