"""Outlines: every shape is a list of closed rings of ``(x, y)`` points, in pixels; filled by non-zero winding."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

Point = tuple[float, float]
Ring = list[Point]
Shape = list[Ring]

FULL_TURN = 2 * math.pi


def polygon(*points: Point) -> Shape:
    """One ring through the points."""
    return [list(points)]


def ellipse(x: float, y: float, rx: float, ry: float) -> Shape:
    """An ellipse with its centre at ``(x, y)``."""
    count = max(20, min(96, round(4 * max(rx, ry))))
    angles = [FULL_TURN * i / count for i in range(count)]
    return [[(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]]


def circle(x: float, y: float, r: float) -> Shape:
    """A circle with its centre at ``(x, y)``."""
    return ellipse(x, y, r, r)


def arc(x: float, y: float, rx: float, ry: float, start: float, end: float) -> Shape:
    """The part of an ellipse between two angles (in turns, clockwise from the right), closed by its chord."""
    count = max(12, round(3 * max(rx, ry) * abs(end - start)))
    angles = [FULL_TURN * (start + (end - start) * i / count) for i in range(count + 1)]
    return [[(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]]


def rect(x: float, y: float, width: float, height: float, r: float | Sequence[float] = 0.0) -> Shape:
    """A rectangle with its top left corner at ``(x, y)``.

    ``r`` rounds all corners, or each of them: top left, top right, bottom right, bottom left.
    """
    radii = [r] * 4 if isinstance(r, (int, float)) else list(r)
    corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    inward = [(1, 1), (-1, 1), (-1, -1), (1, -1)]
    ring: Ring = []
    for i, ((cx, cy), (dx, dy), radius) in enumerate(zip(corners, inward, radii, strict=True)):
        if radius <= 0:
            ring.append((cx, cy))
            continue
        for step in range(9):
            angle = FULL_TURN * (0.5 + i / 4 + step / 32)
            ring.append((cx + dx * radius + radius * math.cos(angle), cy + dy * radius + radius * math.sin(angle)))
    return [ring]


def star(x: float, y: float, r: float, *, inner: float = 0.5, points: int = 5, turn: float = 0.0) -> Shape:
    """A star with one tip up; ``inner`` is the share of ``r`` at which the notches lie."""
    ring = []
    for i in range(2 * points):
        radius = r if i % 2 == 0 else r * inner
        angle = FULL_TURN * (i / (2 * points) - 0.25 + turn)
        ring.append((x + radius * math.cos(angle), y + radius * math.sin(angle)))
    return [ring]


def blob(*points: Point, samples: int = 8) -> Shape:
    """A smooth closed curve through the points (Catmull-Rom), for organic forms."""
    ring: Ring = []
    count = len(points)
    for i in range(count):
        p0, p1, p2, p3 = (points[(i + k - 1) % count] for k in range(4))
        for step in range(samples):
            ring.append(_spline(p0, p1, p2, p3, step / samples))
    return [ring]


def curve(*points: Point, samples: int = 8) -> Ring:
    """A smooth open curve through the points, to be given to :func:`line` or closed by more points."""
    ends = [points[0], *points, points[-1]]
    out: Ring = []
    for i in range(len(points) - 1):
        for step in range(samples):
            out.append(_spline(*ends[i : i + 4], step / samples))
    out.append(points[-1])
    return out


def _spline(p0: Point, p1: Point, p2: Point, p3: Point, u: float) -> Point:
    def axis(a: float, b: float, c: float, d: float) -> float:
        return 0.5 * (2 * b + (c - a) * u + (2 * a - 5 * b + 4 * c - d) * u * u + (3 * b - a - 3 * c + d) * u**3)

    return axis(p0[0], p1[0], p2[0], p3[0]), axis(p0[1], p1[1], p2[1], p3[1])


def line(points: Sequence[Point], width: float, *, end: float | None = None) -> Shape:
    """A stroke with round joints; ``end`` is the width at its last point, so that strokes can taper."""
    end = width if end is None else end
    steps = max(1, len(points) - 1)
    half = [(width + (end - width) * i / steps) / 2 for i in range(len(points))]
    rings: Shape = []
    for i, (a, b) in enumerate(itertools.pairwise(points)):
        dx, dy = b[0] - a[0], b[1] - a[1]
        length = math.hypot(dx, dy)
        if length == 0:
            continue
        nx, ny = -dy / length, dx / length
        ha, hb = half[i], half[i + 1]
        rings.append(
            [
                (a[0] + nx * ha, a[1] + ny * ha),
                (b[0] + nx * hb, b[1] + ny * hb),
                (b[0] - nx * hb, b[1] - ny * hb),
                (a[0] - nx * ha, a[1] - ny * ha),
            ]
        )
    for point, radius in zip(points, half, strict=True):
        if radius > 0.2:
            rings.extend(circle(*point, radius))
    return rings


def merge(*shapes: Shape) -> Shape:
    """One shape that covers all of them."""
    return [ring for shape in shapes for ring in shape]
