"""What happens in a clip, measured on the rendered id maps and read from the scene's states.

A span is ``(first frame, last frame)``, both included. In seconds it reaches to the end of the last frame's display.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from render import HEIGHT, WIDTH
from scenes import FPS, Scene

try:
    from evqa import masks as rle
except ImportError:  # run from a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    from evqa import masks as rle

Span = tuple[int, int]

#: An object is in view when at least so many of its pixels are; the masks leave out frames with fewer.
MIN_PIXELS = 12

#: Frames before and after something is covered that it takes to see it go and come.
AROUND = 1


def seconds(spans: Iterable[Span]) -> list[list[float]]:
    """Spans as sorted, disjoint segments in seconds."""
    merged: list[list[int]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1][1] = max(merged[-1][1], last)
        else:
            merged.append([first, last])
    return [[round(first / FPS, 3), round((last + 1) / FPS, 3)] for first, last in merged]


def runs(flags: Iterable[bool]) -> list[Span]:
    """The spans over which a condition holds."""
    spans: list[Span] = []
    for i, flag in enumerate(flags):
        if flag and spans and spans[-1][1] == i - 1:
            spans[-1] = (spans[-1][0], i)
        elif flag:
            spans.append((i, i))
    return spans


class Facts:
    """The measured course of one clip.

    Attributes:
        scene: The scene that was rendered.
        masks: ``{object: {frame: RLE}}`` of its visible pixels, for frames in which it has any.
        area: ``{object: [pixels per frame]}``: what is visible of it.
        whole: ``{object: [pixels per frame]}``: what would be visible of it if nothing stood before it.
        before: ``{object: [{name: pixels} per frame]}``: who is seen where it is (itself, others, ``""`` scenery).
        centre: ``{object: {frame: x of the visible pixels' centre}}``.
        pictures: uint8 ``[frames, height, width, 3]``, if they were asked for.
        owners: Likewise: uint8 ``[frames, HEIGHT, WIDTH]``, the place in ``scene.names`` of who is seen, plus one.
    """

    def __init__(self, scene: Scene, *, pictures: tuple[int, int] | None = None):
        """Render the id map of every frame and measure it; ``pictures``: width and height of those to keep."""
        self.scene = scene
        images, owners = [], []
        names = scene.names
        self.masks: dict[str, dict[int, dict]] = {name: {} for name in names}
        self.area: dict[str, list[int]] = {name: [0] * scene.frames for name in names}
        self.whole: dict[str, list[float]] = {name: [0.0] * scene.frames for name in names}
        self.before: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        self.centre: dict[str, dict[int, float]] = {name: {} for name in names}
        base = scene.render_backdrop(picture=pictures is not None)
        for index in range(scene.frames):
            frame = scene.render(index, base, picture=pictures is not None)
            if pictures is not None:
                images.append(np.asarray(frame.image(*pictures)))
                owners.append(np.zeros((HEIGHT, WIDTH), np.uint8))
            for name, mask in frame.visible().items():
                if owners:
                    owners[-1][mask] = names.index(name) + 1
                self.masks[name][index] = rle.to_json(rle.encode(mask))
                self.area[name][index] = int(mask.sum())
                self.centre[name][index] = float(np.flatnonzero(mask.any(axis=0)).mean())
            for name in names:
                self.whole[name][index], seen = frame.covered_by(name)
                self.before[name].append(seen)
        self.pictures, self.owners = (np.stack(images), np.stack(owners)) if images else (None, None)
        self._states = [scene.states(index / FPS) for index in range(scene.frames)]

    def names(self, kind: str) -> list[str]:
        """The objects of a kind that come into view at all."""
        return [thing.name for thing in self.scene.things if thing.kind == kind and max(self.area[thing.name]) > 0]

    def colour(self, name: str) -> str:
        """The colour word of an object."""
        return next(thing.colour for thing in self.scene.things if thing.name == name)

    def seen(self, name: str) -> list[Span]:
        """When at least :data:`MIN_PIXELS` of an object are visible."""
        return runs(pixels >= MIN_PIXELS for pixels in self.area[name])

    def hidden(self, name: str) -> list[Span]:
        """When an object is inside the frame and something before it leaves less than that visible."""
        return runs(
            whole >= MIN_PIXELS > pixels for whole, pixels in zip(self.whole[name], self.area[name], strict=True)
        )

    def hider(self, name: str, span: Span) -> str:
        """Who covers most of an object over a span."""
        totals: dict[str, float] = {}
        for frame in range(span[0], span[1] + 1):
            for other, pixels in self.before[name][frame].items():
                if other not in ("", name):
                    totals[other] = totals.get(other, 0.0) + pixels
        return max(totals, key=lambda other: totals[other])

    def behind(self, name: str, occluder: str) -> list[Span]:
        """When an object goes behind another, is there, and comes out: from just before to just after."""
        covered = [
            seen.get(occluder, 0.0) >= 0.1 * whole > 0
            for seen, whole in zip(self.before[name], self.whole[name], strict=True)
        ]
        return runs(
            self.whole[name][i] >= MIN_PIXELS and any(covered[max(0, i - AROUND) : i + AROUND + 1])
            for i in range(self.scene.frames)
        )

    def entrance(self, name: str) -> Span:
        """From the first sight of an object until all of it is in view."""
        first, last = self.seen(name)[0]
        visit = self.whole[name][first : last + 1]
        return first, first + next(i for i, pixels in enumerate(visit) if pixels >= 0.97 * max(visit))

    def doing(self, verb: str, names: Iterable[str] | None = None) -> list[tuple[str, Span]]:
        """Who is in a state, and when; in order of time."""
        names = self.scene.names if names is None else names
        found = [(name, span) for name in names for span in runs((name, verb) in now for now in self._states)]
        return sorted(found, key=lambda item: item[1])

    def doing_any(self) -> list[tuple[str, Span]]:
        """Everything that is in a state, as ``name verb``, and when; in order of time."""
        verbs = sorted({verb for now in self._states for _, verb in now})
        return sorted(
            ((f"{name} {verb}", span) for verb in verbs for name, span in self.doing(verb)), key=lambda item: item[1]
        )
