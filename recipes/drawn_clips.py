"""Clips of the sample benchmark's world for `tiny_shapes.py`: drawn while a model trains, and kept on its device.

:class:`World` has clips drawn, in processes of its own, and takes their pixels onto the device; :class:`ClipRows` puts
the words of a clip's questions into one row, and :class:`Collator` rows into a batch, in the loader's workers.
"""

import concurrent.futures
import functools
import json
import random
import re
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from evqa.models.unipixel.media_unipixel import ClipFrames, FrameList, Geometry, fit
from evqa.models.unipixel.sequence_unipixel import index_targets
from evqa.prompts import lettered
from evqa.scoring.answers import LETTERS
from evqa.training.collator import UniPixelCollator
from evqa.training.conversations import converse
from evqa.training.sharing import OF_THE_CLIP, share_clip
from evqa.video.info import VideoInfo

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "dataset_scripts" / "st_evidence" / "sample"))
import make_training

#: How questions begin whose answers depend on where a clip's middle is.
HALF = "In which half"
HEIGHT, WIDTH = 216, 384  # of a clip's file; what is drawn here is two thirds of it
#: Fewer pixels of an object than this, of 216 x 384, are no mask (make_training's own limit).
LEAST_PIXELS = 12


def draw_clip(work: Path, seed: str, number: int) -> tuple[str, int]:
    """Draw a clip into a folder: pixels, who is seen where, and its questions; its name and length."""
    made = make_training.make_clip(work, seed, 2, True, number)
    name = made.talk["id"]
    entries = [
        {
            **entry, "answer_index": entry["candidates"].index(entry["answer"]), "metadata": json.dumps(entry),
            "masks": True, "regions": [made.names.index(one) + 1 for one in entry["evidence"]],
        }
        for entry in made.entries
    ]  # fmt: skip
    owners = work / "videos" / f"{name}_owners.npy"
    seen = np.load(owners)
    for index in range(1, len(made.names) + 1):
        own = seen == index
        seen[(own.sum((1, 2)) < LEAST_PIXELS)[:, None, None] & own] = 0
    np.save(owners, seen)
    (work / f"{name}.json").write_text(json.dumps({"entries": entries, "masks": made.masks}))
    return name, len(seen)


class World:
    """Clips as they are drawn, on the device.

    ``frames[name]``: uint8 ``[frames, 3, 144, 256]``. ``owners[name]``: uint8 ``[frames, S, S]``, the number of the
    object that a pixel of SAM 2's square shows. ``lengths``: names by number of frames.
    """

    def __init__(self, work: Path, seed: str, pool: concurrent.futures.Executor, device: str, square: int):
        (work / "videos").mkdir(parents=True, exist_ok=True)
        self.work, self.device, self.square = work, device, square
        self.draw_one = functools.partial(draw_clip, work, seed)
        self.pool, self.done, self.lock = pool, [], threading.Lock()
        self.frames, self.owners, self.lengths = {}, {}, {}

    def draw(self, numbers: Iterable[int]) -> None:
        """Ask for clips by number; they are taken in when they are there."""
        for number in numbers:
            self.pool.submit(self.draw_one, number).add_done_callback(self._arrived)

    def _arrived(self, future: concurrent.futures.Future) -> None:
        if not future.cancelled():
            with self.lock:
                self.done.append(future)

    def take_in(self, most: int | None = None) -> int:
        """Move what has arrived onto the device, at most so many; the number of clips so far."""
        with self.lock:
            arrived, self.done = self.done[:most], self.done[len(self.done[:most]) :]
        rows = torch.arange(self.square) * 2 + 1
        y, x = rows * HEIGHT // (2 * self.square), rows * WIDTH // (2 * self.square)
        for future in arrived:
            name, length = future.result()
            pixels, owners = (self.work / "videos" / f"{name}{end}.npy" for end in ("", "_owners"))
            self.frames[name] = torch.from_numpy(np.load(pixels)).to(self.device).permute(0, 3, 1, 2).contiguous()
            self.owners[name] = torch.from_numpy(np.load(owners))[:, y][:, :, x].to(self.device)
            self.lengths.setdefault(length, []).append(name)
            pixels.unlink()
            owners.unlink()
        return len(self.frames)

    def entries(self) -> list[dict]:
        """The questions as entries of the benchmark, with their clips and masks."""
        out = []
        for name, frames in self.frames.items():
            told = json.loads((self.work / f"{name}.json").read_text())
            for entry in told["entries"]:
                masks = [
                    {**m, "time": None, "rle": {**m["rle"], "counts": m["rle"]["counts"].encode()}}
                    for m in told["masks"][entry["entry_id"]]
                ]
                large = torch.nn.functional.interpolate(frames, (HEIGHT, WIDTH))  # masks are of this size
                out.append({**entry, "video": FrameList(large.cpu(), fps=entry["fps"]), "masks": masks})
        return out


def draws(world: World, batch: int, seed: int):
    """Batches of (clip, number of the draw) without end, from what is there; clips of one length in each."""
    rng, number = random.Random(seed), 0
    while True:
        lengths = list(world.lengths)
        length = rng.choices(lengths, [len(world.lengths[n]) for n in lengths])[0]
        names = world.lengths[length]
        chosen = rng.sample(names, batch) if len(names) >= batch else rng.choices(names, k=batch)
        yield [(name, number + i) for i, name in enumerate(chosen)]
        number += batch


_SPAN = re.compile(r"\[(\d+\.\d), (\d+\.\d)\]")


def shifts(entries: list[dict]) -> list[int]:
    """By how many frames a clip may begin later (or earlier, below 0) without losing anything that happens in it."""
    fps, frames = entries[0]["fps"], entries[0]["num_frames"]
    times = [[round(float(t) * fps) for t in span] for span in _SPAN.findall(entries[0]["rationale"] or "")]
    times += [[round(t * fps) for t in span] for entry in entries for span in entry["segments"]]
    first = min((start for start, _ in times if start > 0), default=frames)
    last = max((end for _, end in times if end < frames), default=0)
    return list(range(-min(6, max(0, first - 1)), min(6, max(0, frames - 1 - last)) + 1))


def shifted_entry(entry: dict, later: int) -> dict:
    """The question about a clip that begins so many frames later: what is on at its ends stays on."""
    fps, frames = entry["fps"], entry["num_frames"]

    def moved(start: float, end: float) -> list[float]:
        first, last = round(start * fps), round(end * fps)
        return [(first + later if first > 0 else 0) / fps, (last + later if last < frames else frames) / fps]

    told = json.loads(entry["metadata"])
    text = told["rationale"] and _SPAN.sub(
        lambda found: "[{:.1f}, {:.1f}]".format(*moved(*map(float, found.groups()))), told["rationale"]
    )
    segments = [moved(*span) for span in entry["segments"]]
    return {**entry, "segments": segments, "metadata": json.dumps({**told, "rationale": text})}


class ClipRows(Dataset):
    """``rows[name, number]``: questions about a clip in one row, drawn by the number; without pixels.

    Args:
        work: Where :func:`draw_clip` wrote.
        processor: The model's.
        templates: Of the questions.
        tracked: Frames that SAM 2 sees of each clip.
        questions: Questions of each clip.
        seed: Of what is drawn.
        shift: Let clips begin earlier or later, standing still at the ends, so that times cannot be known by heart.
    """

    def __init__(self, work: Path, processor, templates, tracked: int, questions: int, seed: int, shift: bool = True):
        self.work, self.processor, self.templates = work, processor, templates
        self.tracked, self.questions, self.seed, self.shift = tracked, questions, seed, shift
        self.last = processor.tokenizer.convert_tokens_to_ids("<|vision_end|>")
        self.told = functools.lru_cache(4096)(self._told)
        self.clip = functools.lru_cache(8)(self._clip)

    def _told(self, name: str) -> list[dict]:
        return json.loads((self.work / f"{name}.json").read_text())["entries"]

    def __getitem__(self, place: tuple[str, int]) -> dict:
        """See above; ``clip``, ``tracked`` and ``regions`` tell which pixels and masks belong to the row."""
        name, number = place
        rng, entries = random.Random(f"{self.seed}/{number}"), self.told(name)
        frames = entries[0]["num_frames"]
        lasting = [entry for entry in entries if not entry["question"].startswith(HALF)]
        later = rng.choice(shifts(entries)) if self.shift and lasting else 0
        if later:
            entries = [shifted_entry(entry, later) for entry in lasting]
        tracked = sorted(rng.sample(range(frames), self.tracked))
        letter = self._encode(frames, entries[0]["fps"], self._letter(rng.choice(entries), rng))
        beginning = letter["input_ids"].index(self.last) + 1
        samples, regions = [letter], []
        order = rng.sample(entries, len(entries))
        for k in range(self.questions):  # where there are fewer, one comes twice, its options in another order
            entry = order[k % len(order)]
            talk = converse(
                entry, rng.random, templates=self.templates, shuffle_options=True, say_option=True, say_rationale=True
            )
            # The clip's thousand tokens are spelled out once; the others are given the first one's, and its times.
            own = self._encode(2, entry["fps"], talk.messages)
            tail = own["input_ids"].index(self.last) + 1
            own["input_ids"] = letter["input_ids"][:beginning] + own["input_ids"][tail:]
            own["labels"] = letter["labels"][:beginning] + own["labels"][tail:]
            samples.append(own | {name: letter[name] for name in OF_THE_CLIP if name in letter})
            regions.append(entry["regions"])
        shown = [min(max(frame - later, 0), frames - 1) for frame in range(frames)]
        return share_clip(samples, self.last) | {
            "clip": name, "shown": shown, "tracked": tracked, "regions": regions,
        }  # fmt: skip

    def _letter(self, entry: dict, rng: random.Random) -> list[dict]:
        """The answer is told; which letter is it? That is learnt sooner where nothing has to be seen for it."""
        options = rng.sample(entry["candidates"], len(entry["candidates"]))
        ask = f"The answer is: {entry['answer']}\nOptions:\n{lettered(options)}\nGive the letter of the right option."
        reply = f"Answer: {LETTERS[options.index(entry['answer'])]}."
        return [
            {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": ask}]},
            {"role": "assistant", "content": [{"type": "text", "text": reply}]},
        ]

    def _encode(self, frames: int, fps: float, messages) -> dict:
        clip = self.clip(frames, fps)
        messages = [
            {**m, "content": [{"type": "video", "video": clip} if c["type"] == "video" else c for c in m["content"]]}
            for m in messages
        ]
        sample = self.processor.encode(messages, labels=True)
        return {name: value for name, value in sample.items() if name != "clip"}

    def _clip(self, frames: int, fps: float) -> ClipFrames:
        geometry = Geometry.of(self.processor.video_processor)
        times = np.arange(frames) / fps
        info = VideoInfo.from_times("<drawn>", times, 1 / fps, height=HEIGHT, width=WIDTH)
        h, w = (side // geometry.patch for side in fit(HEIGHT, WIDTH, geometry.cell, *self.processor.budget(60)))
        nothing = torch.zeros(0, 3 * geometry.temporal_patch * geometry.patch**2)
        grid = (-(-frames // geometry.temporal_patch), h, w)
        return ClipFrames(info, nothing, grid, times, times[:: geometry.temporal_patch])


class Collator(UniPixelCollator):
    """Rows of :class:`ClipRows` to tensors of fixed shapes: what a step reads, but for the pixels.

    See ``shapes_step.Batch``; besides ``clips``, their names, ``shown`` int64 ``[B, frames]``, which of a clip's frames
    are shown when, ``tracked`` int64 ``[B, T]``, which of those SAM 2 sees, and ``regions``, bool
    ``[B, 64, Q]``: which objects of a clip are the evidence of which question.
    """

    #: Room for labelled tokens, a row.
    ROOM = 1024
    #: What the right letter counts, and what the words of the right option count, where any other token counts 1. They
    #: are a hundredth of the tokens; without this nothing is learnt of them while times are still being learnt.
    LETTER, OPTION = 10.0, 3.0

    def __call__(self, rows: list[dict]) -> dict:
        """See the class."""
        batch = super().__call__(rows)
        if failures := batch["report"]["failures"]:
            raise RuntimeError(failures[0])
        ids, found = batch["host"].input_ids, batch["label_positions"]
        if ids.shape[1] != self.max_length:
            raise RuntimeError(f"a row of more than {self.max_length} tokens: {[row['clip'] for row in rows]}")
        places = torch.zeros(len(rows) * self.ROOM, dtype=torch.long)  # the first token predicts nothing
        places[: len(found)] = found
        seg = index_targets(ids, None, self.config.seg_token_id)
        regions = torch.zeros(len(rows), 64, len(rows[0]["regions"]), dtype=torch.bool)
        for row, own in enumerate(rows):
            for k, objects in enumerate(own["regions"]):
                regions[row, objects, k] = True
        return {
            "ids": ids, "labels": batch["labels"], "branches": batch["branches"], "positions": batch["position_ids"],
            "label_positions": places, "tokens": torch.tensor(float(len(found))), "weights": self._weights(ids, places),
            "seg_places": torch.cat([row * ids.shape[1] + own for row, own in enumerate(seg)]),
            "clips": [row["clip"] for row in rows], "tracked": torch.tensor([row["tracked"] for row in rows]),
            "regions": regions, "shown": torch.tensor([row["shown"] for row in rows]),
        }  # fmt: skip

    def _weights(self, ids: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """What each labelled token counts: float ``[N]``."""
        name = self.processor.tokenizer.convert_tokens_to_ids
        shows, answer, colon = name(["Ġshows", "ĠAnswer", ":"])
        letters = set(name([f"Ġ{letter}" for letter in LETTERS]))
        flat, weights, inside, before = ids.flatten().tolist(), [], False, None
        for place in places.tolist():
            token = flat[place + 1]
            inside = (inside or before == shows) and token != answer
            is_letter = token in letters and before == colon
            weights.append(self.LETTER if is_letter else self.OPTION if inside else 1.0)
            before = token
        return torch.tensor(weights)

    def _encode(self, place):
        return {
            name: value for name, value in place.sample.items() if name not in ("clip", "shown", "tracked", "regions")
        }
