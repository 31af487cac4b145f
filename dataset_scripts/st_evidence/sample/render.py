"""Drawing with 4 x 4 samples a pixel: the picture, and for each sample which object is seen there.

Both come from the same coverage test, so a mask can never disagree with the picture. Coverage is decided in
integers (vertices on a grid of 1/64 pixel), so masks do not depend on a machine's floating point.

A pixel belongs to an object when more than half of its 16 samples do. Translucent layers (shadows, light, water,
glass over the scene) change the picture and never the ownership.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from geometry import Shape
from PIL import Image

WIDTH, HEIGHT = 384, 216
SAMPLES = 4
GRID = 64  # vertex positions per pixel
STEP = GRID // SAMPLES

#: A colour ``"#rrggbb"``, or ``(top, bottom)`` for a vertical gradient over the shape's own height.
Paint = str | tuple[str, str]

Matrix = tuple[float, float, float, float, float, float]
IDENTITY: Matrix = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)


def rgb(colour: str) -> np.ndarray:
    """``"#rrggbb"`` as three floats."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float32)


def coverage(rings: Sequence[np.ndarray], height: int, width: int) -> tuple[int, int, np.ndarray] | None:
    """The samples inside a shape, by non-zero winding.

    Args:
        rings: Closed polygons, each int64 of shape ``[points, 2]`` (x, y) in 1/64 pixel, all of one orientation.
        height, width: Size of the sample grid.

    Returns:
        ``(first row, first column, mask[rows, columns])`` of the part inside the grid, or ``None`` if there is none.
    """
    # Shapes are small and many: what counts is the number of calls, so both axes go through each of them together.
    start = rings[0] if len(rings) == 1 else np.concatenate(rings)
    end = np.concatenate([part for ring in rings for part in (ring[1:], ring[:1])])
    # Sample k of an axis sits at STEP * k + STEP / 2; a ceiling division finds the first one at or past a position.
    half = STEP // 2
    (left, high), (right, low) = start.min(axis=0).tolist(), start.max(axis=0).tolist()
    c0, r0 = max(0, -((half - left) // STEP)), max(0, -((half - high) // STEP))
    c1, r1 = min(width, -((half - right) // STEP)), min(height, -((half - low) // STEP))
    if c0 >= c1 or r0 >= r1:
        return None
    rise = end[:, 1] - start[:, 1]
    keep = rise.nonzero()[0]
    (x, y), (x2, y2), rise = start[keep].T, end[keep].T, rise[keep]
    sign = np.sign(rise)
    upward = sign < 0
    top = np.where(upward, y2, y)
    first = np.minimum(np.maximum(-((half - top) // STEP), r0), r1)
    count = np.minimum(np.maximum(-((half - np.where(upward, y, y2)) // STEP), r0), r1) - first
    edge = np.repeat(np.arange(len(keep)), count)
    row = np.arange(len(edge)) + (first - (np.cumsum(count) - count))[edge]
    # An edge of slope dx / dy from its upper end: both signs turn with its direction, so that their product does not.
    x = np.where(upward, x2, x) - half
    dx, dy = (x2 - start[keep, 0]) * sign, rise * sign
    crossing = (x * dy)[edge] + (row * STEP + (half - top)[edge]) * dx[edge]
    column = np.minimum(np.maximum(-(-crossing // (dy * STEP)[edge]), c0), c1)
    wide = c1 - c0 + 1
    place = (row - r0) * wide + (column - c0)
    winding = np.bincount(place, sign[edge], (r1 - r0) * wide).astype(np.int16).reshape(r1 - r0, wide)
    return r0, c0, np.cumsum(winding[:, :-1], axis=1, dtype=np.int16) != 0


class Frame:
    """One frame in the making.

    Args:
        owners: Names of the objects; their place in the list plus one is their id, 0 is scenery.
        picture: Whether to draw colours; ids alone are much faster.
        base: A frame to start from, for what does not move.
    """

    def __init__(self, owners: Sequence[str], *, picture: bool = True, base: Frame | None = None):
        """An empty frame, or a copy of the base."""
        self.owners = owners
        height, width = HEIGHT * SAMPLES, WIDTH * SAMPLES
        if base is None:
            self.ids = np.zeros((height, width), dtype=np.uint8)
            self.colours = np.zeros((height, width, 3), dtype=np.uint8) if picture else None
            self.extent: dict[str, np.ndarray] = {}
        else:
            self.ids = base.ids.copy()
            self.colours = base.colours.copy() if picture else None
            self.extent = dict(base.extent)
        # The rows and columns that an object's samples lie in, so that nothing needs to look at the whole grid;
        # and the extents that are still the base's own and must be copied before they grow.
        self._boxes: dict[str, tuple[int, int, int, int]] = {} if base is None else dict(base._boxes)
        self._borrowed = set(self.extent)

    def image(self, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
        """The picture, averaged over the samples."""
        picture = Image.fromarray(self.colours)
        if (width, height) == (WIDTH, HEIGHT):
            return picture.reduce(SAMPLES)
        return picture.resize((width, height), Image.Resampling.BOX)

    def visible(self) -> dict[str, np.ndarray]:
        """``{name: bool[HEIGHT, WIDTH]}``: the pixels of which each object owns more than half; empty ones left out."""
        masks = {}
        for index, name in enumerate(self.owners, start=1):
            if name not in self._boxes:
                continue
            r0, r1, c0, c1 = (edge // SAMPLES for edge in self._boxes[name])
            r1, c1 = min(HEIGHT, r1 + 1), min(WIDTH, c1 + 1)
            own = self.ids[r0 * SAMPLES : r1 * SAMPLES, c0 * SAMPLES : c1 * SAMPLES] == index
            count = own.view(np.uint8).reshape(-1, c1 - c0, SAMPLES).sum(axis=2, dtype=np.uint8)
            count = count.reshape(r1 - r0, SAMPLES, c1 - c0).sum(axis=1, dtype=np.uint8)
            part = 2 * count > SAMPLES * SAMPLES
            if part.any():
                masks[name] = np.zeros((HEIGHT, WIDTH), dtype=bool)
                masks[name][r0:r1, c0:c1] = part
        return masks

    def covered_by(self, name: str) -> tuple[float, dict[str, float]]:
        """How many pixels an object would show inside the frame were nothing before it, and who is seen there.

        Returns:
            Pixels (area of the samples), and pixels per owner: the object itself, what hides it, ``""`` for scenery.
        """
        if name not in self.extent:
            return 0.0, {}
        r0, r1, c0, c1 = self._boxes[name]
        counts = np.bincount(self.ids[r0:r1, c0:c1][self.extent[name][r0:r1, c0:c1]])
        per_pixel = SAMPLES * SAMPLES
        seen = {(self.owners[i - 1] if i else ""): n / per_pixel for i, n in enumerate(counts.tolist()) if n}
        return int(counts.sum()) / per_pixel, seen

    def grow(self, name: str, row: int, column: int, mask: np.ndarray) -> None:
        """Add samples to what an object would show were nothing before it."""
        box = (row, row + mask.shape[0], column, column + mask.shape[1])
        if name not in self.extent:
            self.extent[name] = np.zeros(self.ids.shape, dtype=bool)
            self._boxes[name] = box
        elif name in self._borrowed:
            self.extent[name] = self.extent[name].copy()
            self._borrowed.discard(name)
        old = self._boxes[name]
        self._boxes[name] = (min(old[0], box[0]), max(old[1], box[1]), min(old[2], box[2]), max(old[3], box[3]))
        self.extent[name][box[0] : box[1], box[2] : box[3]] |= mask


class Pen:
    """Draws on a frame in its own coordinates, for one object or for the scenery."""

    def __init__(self, frame: Frame, owner: str | None = None, matrix: Matrix = IDENTITY):
        """``matrix`` maps the pen's coordinates to pixels: ``x = a u + c v + e``, ``y = b u + d v + f``."""
        self.frame, self.owner, self.matrix = frame, owner, matrix

    def named(self, owner: str) -> Pen:
        """The same pen, drawing for an object: what it paints belongs to it."""
        return Pen(self.frame, owner, self.matrix)

    def at(self, x: float, y: float, *, scale: float = 1.0, turn: float = 0.0, stretch: float = 1.0) -> Pen:
        """A pen whose origin lies at ``(x, y)``.

        ``scale`` and then ``turn`` (in turns, clockwise) apply to what it draws; ``stretch`` scales along x before
        that, so -1 mirrors.
        """
        cos, sin = math.cos(2 * math.pi * turn) * scale, math.sin(2 * math.pi * turn) * scale
        a, b, c, d, e, f = self.matrix
        la, lb, lc, ld = cos * stretch, sin * stretch, -sin, cos
        return Pen(
            self.frame,
            self.owner,
            (
                a * la + c * lb,
                b * la + d * lb,
                a * lc + c * ld,
                b * lc + d * ld,
                a * x + c * y + e,
                b * x + d * y + f,
            ),
        )

    def fill(self, shape: Shape, paint: Paint, *, alpha: float = 1.0, within: Shape | None = None) -> None:
        """Fill a shape; ``within`` clips it. With ``alpha`` below 1 it is a layer of light, not a thing."""
        frame = self.frame
        if frame.colours is None and alpha < 1:
            return
        height, width = frame.ids.shape
        rings = self._place(shape)
        found = coverage(rings, height, width)
        if found is None:
            return
        r0, c0, mask = found
        if within is not None:
            clip = np.zeros((height, width), dtype=bool)
            inner = coverage(self._place(within), height, width)
            if inner is None:
                return
            clip[inner[0] : inner[0] + inner[2].shape[0], inner[1] : inner[1] + inner[2].shape[1]] = inner[2]
            mask = mask & clip[r0 : r0 + mask.shape[0], c0 : c0 + mask.shape[1]]
        area = np.s_[r0 : r0 + mask.shape[0], c0 : c0 + mask.shape[1]]
        if alpha >= 1:
            frame.ids[area][mask] = frame.owners.index(self.owner) + 1 if self.owner else 0
            if self.owner:
                frame.grow(self.owner, r0, c0, mask)
        if frame.colours is None:
            return
        if isinstance(paint, tuple):
            top, bottom = (min(r[:, 1].min() for r in rings), max(r[:, 1].max() for r in rings))
            rows = (np.arange(mask.shape[0]) + r0 + 0.5) * STEP
            u = np.clip((rows - top) / max(1, bottom - top), 0, 1)[:, None, None].astype(np.float32)
            colour = rgb(paint[0]) * (1 - u) + rgb(paint[1]) * u
        else:
            colour = rgb(paint)[None, None]
        if alpha < 1:
            colour = frame.colours[area] * (1 - alpha) + colour * alpha
        colour = np.broadcast_to(np.rint(colour).astype(np.uint8), (*mask.shape, 3))
        np.copyto(frame.colours[area], colour, where=mask[..., None])

    def glow(self, x: float, y: float, rx: float, ry: float, colour: str, alpha: float) -> None:
        """A soft ellipse that fades to its rim: a shadow or a light."""
        frame = self.frame
        if frame.colours is None:
            return
        a, b, c, d, e, f = self.matrix
        cx, cy = (a * x + c * y + e) * SAMPLES, (b * x + d * y + f) * SAMPLES
        wide, high = math.hypot(a, b) * rx * SAMPLES, math.hypot(c, d) * ry * SAMPLES
        height, width = frame.ids.shape
        c0, c1 = max(0, int(cx - wide)), min(width, int(cx + wide) + 1)
        r0, r1 = max(0, int(cy - high)), min(height, int(cy + high) + 1)
        if c0 >= c1 or r0 >= r1 or wide <= 0 or high <= 0:
            return
        u = (np.arange(c0, c1, dtype=np.float32) + 0.5 - cx) / wide
        v = (np.arange(r0, r1, dtype=np.float32) + 0.5 - cy) / high
        fade = np.clip(1 - (u * u)[None, :] - (v * v)[:, None], 0, 1)
        weight = (alpha * fade * fade)[..., None]
        part = frame.colours[r0:r1, c0:c1]
        part[...] = np.rint(part * (1 - weight) + rgb(colour) * weight).astype(np.uint8)

    def _place(self, shape: Shape) -> list[np.ndarray]:
        """The shape in grid units of the frame, every ring in the same orientation so that overlaps add up."""
        a, b, c, d, e, f = self.matrix
        rings = []
        for ring in shape:
            points = np.array(ring, dtype=np.float64)
            x, y = points[:, 0], points[:, 1]
            placed = np.empty((len(points), 2), dtype=np.int64)
            placed[:, 0] = np.rint(GRID * (a * x + c * y + e))
            placed[:, 1] = np.rint(GRID * (b * x + d * y + f))
            x, y = placed[:, 0], placed[:, 1]
            turn = np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1]) + x[-1] * y[0] - x[0] * y[-1]
            rings.append(placed[::-1] if turn < 0 else placed)
        return rings
