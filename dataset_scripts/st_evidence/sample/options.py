"""The wrong choices: segments that miss the truth and regions that show something else; and the letters."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterable, Sequence

import numpy as np
from facts import MIN_PIXELS, Facts, Span, rle
from PIL import Image
from render import HEIGHT, WIDTH, Frame

LETTERS = "abcd"

#: A wrong choice of segments shares less than this with the truth (temporal IoU), and with another wrong one less
#: than the second figure.
MAX_TIME_OVERLAP, MAX_TIME_LIKENESS = 0.4, 0.75
#: A wrong region covers less than this share of the truth, and the truth less than this share of it.
MAX_REGION_OVERLAP = 0.1
#: An object of fewer pixels is too small to be outlined.
MIN_REGION = 60

OPTION_WIDTH, OPTION_HEIGHT = 256, 144
RED, RIM = (232, 18, 36), (255, 255, 255)


def shuffled(items: Iterable, rng: random.Random) -> list:
    """A shuffled copy. Only ``rng.random`` is used: its sequence is the same in every version of Python."""
    items = list(items)
    for i in range(len(items) - 1, 0, -1):
        j = int(rng.random() * (i + 1))
        items[i], items[j] = items[j], items[i]
    return items


# ---------------------------------------------------------------------------------------- segments
def frames_of(spans: Iterable[Span]) -> set[int]:
    """All frames of the spans."""
    return {frame for first, last in spans for frame in range(first, last + 1)}


def overlap(a: Iterable[Span], b: Iterable[Span]) -> float:
    """Temporal intersection over union."""
    a, b = frames_of(a), frames_of(b)
    return len(a & b) / len(a | b)


def wrong_spans(spans: Sequence[Span], frames: int, rng: random.Random) -> list[list[Span]]:
    """Three sets of spans with the lengths of the truth (so that length tells nothing), placed elsewhere."""
    lengths = [last - first + 1 for first, last in sorted(spans)]
    found: list[list[Span]] = []
    for _ in range(20000):
        # Frames left over are dealt out before, between and after; spans that touched would be one span.
        spare = frames - sum(lengths) - 2 * (len(lengths) - 1)
        cuts = sorted(int(rng.random() * (spare + 1)) for _ in lengths)
        option, shift = [], 0
        for cut, length in zip(cuts, shuffled(lengths, rng), strict=True):
            option.append((cut + shift, cut + shift + length - 1))
            shift += length + 2
        if overlap(option, spans) < MAX_TIME_OVERLAP and all(overlap(option, o) < MAX_TIME_LIKENESS for o in found):
            found.append(option)
            if len(found) == 3:
                return found
    raise ValueError(f"no room in {frames} frames for three alternatives to {spans}")


# ----------------------------------------------------------------------------------------- regions
@dataclasses.dataclass(frozen=True)
class Region:
    """What one option image outlines: objects, and how far their outline is moved (in pixels)."""

    names: tuple[str, ...]
    move: tuple[int, int] = (0, 0)

    def mask(self, masks: dict[str, np.ndarray]) -> np.ndarray:
        """The region at the clip's resolution."""
        return moved(np.logical_or.reduce([masks[name] for name in self.names]), *self.move)


def moved(mask: np.ndarray, dx: int, dy: int) -> np.ndarray:
    """A mask shifted to the right and down; what leaves the frame is lost."""
    out = np.zeros_like(mask)
    height, width = mask.shape
    out[max(0, dy) : height + min(0, dy), max(0, dx) : width + min(0, dx)] = mask[
        max(0, -dy) : height + min(0, -dy), max(0, -dx) : width + min(0, -dx)
    ]
    return out


def others_in(facts: Facts, frame: int, evidence: Sequence[str]) -> list[str]:
    """Objects that are no evidence and show enough of themselves to be recognised."""

    def recognisable(name: str) -> bool:
        return facts.area[name][frame] >= max(MIN_REGION, 0.5 * max(facts.area[name]))

    return [name for name in facts.scene.names if name not in evidence and recognisable(name)]


def alike(facts: Facts, names: Iterable[str], evidence: Sequence[str]) -> int:
    """How many of the objects are of a kind with the evidence: those make a choice that needs the video."""
    kinds = {thing.name: thing.kind for thing in facts.scene.things}
    wanted = {kinds[name] for name in evidence}
    return sum(kinds[name] in wanted for name in names)


def best_frame(facts: Facts, spans: Iterable[Span], evidence: Sequence[str]) -> int:
    """A frame of the spans in which the evidence is well visible, together with as many of its like as possible."""
    shown = {frame: [facts.area[name][frame] for name in evidence] for frame in sorted(frames_of(spans))}
    most = max(sum(area >= MIN_REGION for area in areas) for areas in shown.values())
    full = {frame: sum(areas) for frame, areas in shown.items() if sum(a >= MIN_REGION for a in areas) == most}
    clear = [frame for frame, area in full.items() if area >= 0.85 * max(full.values())]
    return max(
        clear, key=lambda frame: (alike(facts, others_in(facts, frame, evidence), evidence), full[frame], -frame)
    )


def regions(facts: Facts, frame: int, evidence: Sequence[str], rng: random.Random) -> list[Region]:
    """The true region and three wrong ones in a frame.

    Wrong ones outline as many other objects; where the scene has too few, the true outline in another place.
    """
    masks = {name: rle.decode(by_frame[frame]) for name, by_frame in facts.masks.items() if frame in by_frame}
    truth = Region(tuple(name for name in evidence if facts.area[name][frame] >= MIN_PIXELS))
    true_mask = truth.mask(masks)
    sets = list(itertools.combinations(others_in(facts, frame, evidence), len(truth.names)))
    chosen: list[Region] = []
    for _ in range(50):
        chosen = []
        for names in sorted(shuffled(sets, rng), key=lambda names: -alike(facts, names, truth.names)):
            # Sets with most objects in common would make the choice a puzzle about what is missing.
            if all(2 * len(set(names) & set(region.names)) <= len(names) for region in chosen):
                chosen.append(Region(names))
                if len(chosen) == 3:
                    return [truth, *chosen]
    for _ in range(5000):
        move = (int((rng.random() * 2 - 1) * WIDTH), int((rng.random() * 2 - 1) * HEIGHT))
        candidate = Region(truth.names, move)
        mask = candidate.mask(masks)
        if mask.sum() < 0.95 * true_mask.sum():
            continue
        taken = [true_mask, *(region.mask(masks) for region in chosen)]
        if all((mask & other).sum() < MAX_REGION_OVERLAP * min(mask.sum(), other.sum()) for other in taken):
            chosen.append(candidate)
            if len(chosen) == 3:
                return [truth, *chosen]
    raise ValueError(f"{facts.scene.video_id}: no room for three alternatives to {truth.names} in frame {frame}")


def outlined(frame: Frame, region: Region) -> Image.Image:
    """The frame with a red line of two pixels around the region, in a thin white rim that sets it off from red."""
    zoom = 3  # drawn larger and averaged, so that the line is smooth
    width, height = OPTION_WIDTH * zoom, OPTION_HEIGHT * zoom
    ids = [frame.owners.index(name) + 1 for name in region.names]
    samples = frame.ids.shape[0] // height
    inside = np.isin(frame.ids[samples // 2 :: samples, samples // 2 :: samples], ids)
    inside = moved(inside, *(round(step * width / WIDTH) for step in region.move))
    picture = np.array(frame.image(width, height))
    line = grown(inside, 2 * zoom)
    picture[grown(line, zoom) & ~line] = RIM
    picture[line & ~inside] = RED
    return Image.fromarray(picture).resize((OPTION_WIDTH, OPTION_HEIGHT), Image.Resampling.BOX)


def grown(mask: np.ndarray, steps: int) -> np.ndarray:
    """A mask grown by so many pixels, alternating cross and square so that corners come out rounded."""
    mask = np.pad(mask, 1)
    for step in range(steps):
        wide = mask.copy()
        wide[:, 1:] |= mask[:, :-1]
        wide[:, :-1] |= mask[:, 1:]
        base = mask if step % 2 else wide
        mask = wide
        mask[1:] |= base[:-1]
        mask[:-1] |= base[1:]
    return mask[1:-1, 1:-1]


# ----------------------------------------------------------------------------------------- letters
def balanced(limits: Sequence[int], rng: random.Random) -> list[int]:
    """A position below each limit, so that all positions are used about equally often."""
    used = [0] * max(limits)
    places = [0] * len(limits)
    # Those with the fewest possible positions choose first; the others can make up for them.
    for i in sorted(shuffled(range(len(limits)), rng), key=lambda i: limits[i]):
        places[i] = min(range(limits[i]), key=lambda place: used[place])
        used[places[i]] += 1
    return places
