"""A street with two lanes: vehicles pass, one after another."""

from __future__ import annotations

import dataclasses

from geometry import blob, circle, ellipse, line, merge, polygon, rect
from motion import path
from render import Pen

from scenes.base import FPS, Ask, Scene, Thing, nothing

VEHICLES = (
    Thing("the yellow taxi", "vehicle", "yellow"),
    Thing("the blue car", "vehicle", "blue"),
    Thing("the white van", "vehicle", "white"),
    Thing("the orange bus", "vehicle", "orange"),
    Thing("the purple pickup", "vehicle", "purple"),
)
FIXTURES = (Thing("the street lamp", "fixture"), Thing("the tree", "fixture"), Thing("the bench", "fixture"))
GLASS = ("#d9eef7", "#a9cfe4")


@dataclasses.dataclass(frozen=True)
class Look:
    """The light of the day."""

    sky: tuple[str, str]
    sun: str
    skyline: str
    houses: tuple[str, ...]
    roofs: tuple[str, ...]
    panes: str
    pavement: str
    road: tuple[str, str]
    crown: tuple[str, str]
    lamp: str


MORNING = Look(
    ("#a9dcf2", "#fdf1dc"),
    "#fff6cf",
    "#c3dbe4",
    ("#f6d5b8", "#e9b7a5", "#f3e3c3", "#c9dccd", "#efc9c9"),
    ("#b5654f", "#7f5a6b", "#c27d54", "#5e7f86", "#a3586a"),
    "#7fa7bd",
    "#e9e2d6",
    ("#6b7687", "#565f70"),
    ("#6fae8b", "#3f7d6b"),
    "#f4f0e2",
)
EVENING = Look(
    ("#433f74", "#f7b08a"),
    "#ffd9a0",
    "#6b5a86",
    ("#8d6f91", "#75668f", "#9a7a8c", "#67658c", "#a17f86"),
    ("#4b3a5f", "#3e3658", "#573f5c", "#393a5c", "#5a3f55"),
    "#ffd98a",
    "#8e819b",
    ("#4a4966", "#38384f"),
    ("#4f6b78", "#30485e"),
    "#fff2b8",
)


def _wheel(pen: Pen, x: float, r: float = 6.2) -> None:
    pen.fill(circle(x, -r, r), "#2b2f3a")
    pen.fill(circle(x, -r, r * 0.48), "#c9ced8")
    pen.fill(circle(x, -r, r * 0.2), "#7d8494")


def _lights(pen: Pen, front: float, back: float, y: float) -> None:
    pen.fill(rect(front - 3, y, 3, 5, 1.5), "#fff3b5")
    pen.fill(rect(back, y, 2.6, 5, 1.2), "#c8524a")


def car(pen: Pen, paint: tuple[str, str], trim: str, *, taxi: bool = False) -> None:
    """A small car, facing right, its wheels on the origin."""
    pen.glow(0, -1, 42, 6, "#101424", 0.55)
    if taxi:
        pen.fill(rect(-7, -39, 14, 7, 2), "#fffbe8")
        pen.fill(rect(-7, -34.5, 14, 2), "#2b2f3a")
    pen.fill(
        blob(
            (-33, -6), (-34, -17), (-25, -21), (-15, -32), (6, -33), (18, -22), (31, -18), (35, -12), (34, -6), (0, -5)
        ),
        paint,
    )
    pen.fill(polygon((-21, -20.5), (-14, -29.5), (-4, -30), (-4, -20.5)), GLASS)
    pen.fill(polygon((-1, -20.5), (-1, -30), (5, -29.8), (14, -20.5)), GLASS)
    pen.fill(rect(-33.5, -11, 68, 2.4, 1), trim)
    if taxi:
        for i in range(11):
            pen.fill(rect(-30 + 5.4 * i, -14.5 + 1.7 * (i % 2), 2.7, 1.7), "#2b2f3a")
    _lights(pen, 34, -34, -17)
    _wheel(pen, -20)
    _wheel(pen, 21)


def van(pen: Pen) -> None:
    """A delivery van."""
    pen.glow(0, -1, 48, 6, "#101424", 0.55)
    pen.fill(
        merge(
            rect(-40, -42, 58, 37, (5, 3, 2, 3)), blob((14, -38), (24, -37), (33, -24), (40, -19), (41, -6), (14, -5))
        ),
        ("#ffffff", "#dfe4ec"),
    )
    pen.fill(polygon((19, -33.5), (24, -33), (31, -22), (19, -22)), GLASS)
    pen.fill(rect(-40, -16, 80.5, 3), "#4f9bb8")
    pen.fill(circle(-14, -29, 7), "#4f9bb8")
    pen.fill(polygon((-18, -27), (-14, -34), (-10, -27)), "#ffffff")
    _lights(pen, 41, -40, -15)
    _wheel(pen, -24)
    _wheel(pen, 25)


def bus(pen: Pen) -> None:
    """A city bus."""
    pen.glow(0, -1, 68, 7, "#101424", 0.55)
    pen.fill(rect(-60, -49, 120, 44, (7, 9, 4, 4)), ("#f79a4b", "#e27328"))
    pen.fill(rect(-60, -17, 120, 3.5), "#fff1dc")
    for i in range(5):
        pen.fill(rect(-53 + 18.5 * i, -42, 15, 16, 2.5), GLASS)
    pen.fill(rect(41, -42, 15, 33, 2.5), GLASS)
    pen.fill(rect(48, -42, 1.4, 33), "#c9641f")
    _lights(pen, 60, -60, -23)
    _wheel(pen, -37, 7)
    _wheel(pen, 28, 7)


def pickup(pen: Pen) -> None:
    """A pickup truck with two crates."""
    pen.glow(0, -1, 46, 6, "#101424", 0.55)
    pen.fill(rect(-32, -32, 13, 13, 1), ("#dcb07a", "#c3925c"))
    pen.fill(rect(-18, -29, 10, 10, 1), ("#cfa06a", "#b58450"))
    pen.fill(
        merge(
            rect(-39, -21, 50, 15, (2, 0, 0, 3)),
            blob((-4, -20), (0, -34), (15, -35), (23, -22), (36, -19), (39, -12), (38, -6), (-4, -6)),
        ),
        ("#a274c8", "#7d4fa6"),
    )
    pen.fill(polygon((3, -21), (4.5, -31), (13, -31.5), (18.5, -21)), GLASS)
    pen.fill(rect(-38.5, -11, 76, 2.2, 1), "#65408a")
    _lights(pen, 38, -39, -17)
    _wheel(pen, -23, 7)
    _wheel(pen, 22, 7)


def _vehicle(pen: Pen, name: str) -> None:
    pen = pen.named(name)
    if name == "the yellow taxi":
        car(pen, ("#ffd75a", "#f3b92c"), "#d99a17", taxi=True)
    elif name == "the blue car":
        car(pen, ("#5fb0ee", "#2f7fc9"), "#2566a8")
    elif name == "the white van":
        van(pen)
    elif name == "the orange bus":
        bus(pen)
    else:
        pickup(pen)


def _houses(pen: Pen, look: Look) -> None:
    x = -8.0
    for i, (width, height) in enumerate(((92, 74), (70, 92), (86, 66), (76, 86), (90, 72))):
        top = 130 - height
        pen.fill(rect(x, top, width, height), look.houses[i])
        if i % 2:
            pen.fill(rect(x - 2, top - 6, width + 4, 8, 2), look.roofs[i])
        else:
            pen.fill(
                polygon((x - 4, top + 1), (x + 12, top - 17), (x + width - 12, top - 17), (x + width + 4, top + 1)),
                look.roofs[i],
            )
        columns = 3 if width > 80 else 2
        gap = width / columns
        for row in range(2 if height > 80 else 1):
            for column in range(columns):
                wx, wy = x + gap * (column + 0.5) - 8, top + 11 + 23 * row
                pen.fill(rect(wx - 1.5, wy - 1.5, 19, 20, 1.5), "#ffffff", alpha=0.75)
                pen.fill(rect(wx, wy, 16, 17, 1), look.panes)
                pen.fill(merge(rect(wx + 7.4, wy, 1.2, 17), rect(wx, wy + 7.9, 16, 1.2)), "#ffffff", alpha=0.75)
        shop = rect(x + 8, 101, width - 16, 29, 1)
        pen.fill(shop, look.panes)
        pen.fill(rect(x + width / 2 - 7, 104, 14, 26, (2, 2, 0, 0)), look.roofs[i])
        stripes = 8
        step = (width - 10) / stripes
        for k in range(stripes):
            colour = look.roofs[i] if k % 2 else "#fff7ea"
            pen.fill(rect(x + 5 + k * step, 95, step, 10, (0, 0, 3, 3)), colour)
        x += width


def _backdrop(pen: Pen, look: Look) -> None:
    pen.fill(rect(0, 0, 384, 140), look.sky)
    pen.glow(310, 34, 90, 90, look.sun, 0.8)
    pen.fill(circle(310, 34, 15), look.sun)
    x = 0
    for width, height in (
        (40, 40),
        (26, 66),
        (48, 48),
        (30, 78),
        (44, 54),
        (34, 70),
        (52, 44),
        (28, 80),
        (46, 58),
        (40, 46),
    ):
        pen.fill(rect(x, 118 - height, width, height, (2, 2, 0, 0)), look.skyline)
        x += width
    _houses(pen, look)
    pen.fill(rect(0, 130, 384, 14), look.pavement)
    pen.fill(rect(0, 142, 384, 3), "#ffffff", alpha=0.35)
    pen.fill(rect(0, 145, 384, 55), look.road)
    for i in range(11):
        pen.fill(rect(-6 + 38 * i, 170.5, 20, 2.4, 1), "#ffffff", alpha=0.7)
    pen.fill(rect(0, 200, 384, 16), look.pavement)
    pen.fill(rect(0, 200, 384, 2), "#ffffff", alpha=0.35)
    bench = pen.named("the bench")
    pen.glow(228, 139, 26, 4, "#101424", 0.35)
    bench.fill(merge(rect(210, 118, 36, 4, 1.5), rect(210, 124, 36, 4, 1.5), rect(208, 130, 40, 4, 1.5)), "#8a5a44")
    bench.fill(merge(rect(213, 118, 2.5, 21), rect(240.5, 118, 2.5, 21)), "#3b3f4c")
    pen.glow(62, 139, 30, 4, "#101424", 0.35)
    tree = pen.named("the tree")
    tree.fill(polygon((58, 139), (60, 90), (65, 90), (67, 139)), "#7a5547")
    tree.fill(merge(circle(62, 78, 24), circle(44, 92, 17), circle(80, 93, 18), ellipse(62, 98, 26, 14)), look.crown)
    tree.fill(merge(circle(55, 72, 8), circle(70, 85, 6)), look.crown[0])
    lamp = pen.named("the street lamp")
    pen.glow(330, 139, 12, 3, "#101424", 0.35)
    lamp.fill(line([(330, 139), (330, 76)], 3), "#3b4254")
    lamp.fill(merge(rect(325, 134, 10, 5, 2), rect(322, 72, 16, 4, 2)), "#3b4254")
    lamp.fill(polygon((324, 72), (336, 72), (334, 60), (326, 60)), look.lamp)
    lamp.fill(polygon((322, 60), (338, 60), (330, 53)), "#3b4254")
    pen.glow(330, 67, 34, 34, look.lamp, 0.5)


def street(video_id: str, look: Look, traffic: list[tuple[str, float, int]]) -> Scene:
    """``traffic`` is a list of vehicle, moment of entry, and direction (1: to the right, in the near lane)."""

    def draw(pen: Pen, t: float) -> None:
        # The far lane first: what is nearer covers it.
        for name, start, direction in sorted(traffic, key=lambda item: item[2]):
            reach = 62
            (along,) = path(t, [(start, -reach), (start + (384 + 2 * reach) / 112, 384 + reach)])
            if -reach < along < 384 + reach:
                x, y = (along, 194) if direction > 0 else (384 - along, 165)
                bounce = 0.4 if round(t * FPS) % 2 else 0.0
                _vehicle(pen.at(x, y - bounce, stretch=direction), name)

    words = {"kind": "vehicle", "choices": [thing.name for thing in VEHICLES]}
    return Scene(
        video_id,
        60,
        (*VEHICLES, *FIXTURES),
        lambda pen: _backdrop(pen, look),
        draw,
        nothing,
        (
            Ask("first_seen", {**words, "type": "which", "asks": "Which vehicle comes into view first?"}),
            Ask("next_seen", {**words, "who": "Which vehicle", "after": "the yellow taxi"}),
            Ask("last_colour", words),
        ),
    )


SCENES = (
    street(
        "street_morning",
        MORNING,
        [
            ("the blue car", 0.3, 1),
            ("the yellow taxi", 2.0, -1),
            ("the white van", 3.6, 1),
            ("the purple pickup", 5.3, -1),
        ],
    ),
    street(
        "street_evening",
        EVENING,
        [
            ("the orange bus", 0.2, -1),
            ("the yellow taxi", 1.9, 1),
            ("the purple pickup", 3.5, -1),
            ("the white van", 5.3, 1),
        ],
    ),
)
