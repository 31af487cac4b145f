"""An apple tree: apples fall one by one, and a bird flies past."""

from __future__ import annotations

import dataclasses

from geometry import blob, circle, curve, ellipse, line, merge, polygon, rect
from motion import path, wave
from render import Pen

from scenes.base import Ask, Scene, Thing

#: Where each apple hangs, and the point of the grass where it would come to rest.
APPLES = {
    "the top apple": (168, 50, 160, 190),
    "the far left apple": (113, 88, 106, 186),
    "the far right apple": (226, 92, 254, 188),
    "the middle apple": (166, 84, 190, 193),
    "the low left apple": (136, 106, 132, 194),
    "the low right apple": (198, 108, 212, 195),
    "the upper right apple": (206, 62, 226, 198),
}
THINGS = (
    *(Thing(name, "apple", "yellow") for name in APPLES),
    Thing("the bird", "bird", "blue"),
    Thing("the basket", "fixture"),
    Thing("the ladder", "fixture"),
    Thing("the fence", "fixture"),
    Thing("the sun", "fixture"),
)
FALL = 0.84
SETTLE = 0.26


@dataclasses.dataclass(frozen=True)
class Look:
    """The season."""

    sky: tuple[str, str]
    hills: tuple[str, str, str]
    grass: tuple[str, str]
    crown: tuple[str, str, str]
    sun: str


SUMMER = Look(
    ("#9fd8f0", "#f3f8e6"),
    ("#b9dcc6", "#98cbaa", "#7fbb8f"),
    ("#9fce7c", "#6fae63"),
    ("#2f7a66", "#276857", "#3b8d75"),
    "#fff7d0",
)
AUTUMN = Look(
    ("#f6c9a8", "#fdeedd"),
    ("#d9b7b3", "#c99c95", "#b98a7c"),
    ("#d9b877", "#b58f58"),
    ("#6d3f52", "#5a3346", "#824d60"),
    "#fff1cf",
)


def apple(pen: Pen) -> None:
    """A golden apple around the origin."""
    pen.fill(line([(0, -5), (1.2, -9)], 1.6), "#6b4a36")
    pen.fill(blob((1, -7), (6, -11), (8, -8), (4, -6)), "#a9d15f")
    pen.fill(
        blob((0, -5), (5, -6.6), (7.6, -1), (5, 6), (0, 6.8), (-5, 6), (-7.6, -1), (-5, -6.6)), ("#ffe074", "#f5ac2d")
    )
    pen.fill(ellipse(-3, -2, 1.5, 2.4), "#fff6cf")


def bird(pen: Pen, t: float) -> None:
    """A small bird in flight, facing right."""
    pen = pen.named("the bird")
    lift = 15 * wave(t, 0.5, 0.08)
    body, wing = ("#4f8fe0", "#2f5fb5"), "#23498f"
    pen.fill(polygon((-13, -1), (-29, -5), (-27, 1), (-30, 5), (-12, 4)), wing)
    pen.fill(blob((18, -5), (12, -10), (3, -7), (-14, -2), (-12, 5), (2, 8), (13, 4)), body)
    pen.fill(blob((8, 1), (0, 3), (-6, 3), (0, 7), (9, 6)), "#e9f2ff")
    pen.fill(polygon((17, -7), (25, -4), (17, -2)), "#f7a23b")
    pen.fill(circle(13, -6, 1.7), "#ffffff")
    pen.fill(circle(13.5, -6, 1.0), "#16203a")
    pen.fill(blob((6, -3), (-2, -6 - lift * 0.5), (-12, -6 - lift), (-9, -2 - lift * 0.4), (-6, 0)), wing)


def _backdrop(pen: Pen, look: Look) -> None:
    pen.fill(rect(0, 0, 384, 160), look.sky)
    pen.glow(60, 44, 80, 80, look.sun, 0.9)
    pen.named("the sun").fill(circle(60, 44, 17), look.sun)
    for x, y, scale in ((286, 34, 1.0), (344, 62, 0.7), (20, 84, 0.6)):
        cloud = pen.at(x, y, scale=scale)
        cloud.fill(merge(ellipse(0, 0, 30, 9), circle(-9, -7, 11), circle(9, -5, 9)), "#ffffff", alpha=0.85)
    for colour, points in zip(
        look.hills,
        (
            ((-4, 132), (60, 108), (130, 126), (210, 104), (300, 122), (390, 100)),
            ((-4, 146), (80, 132), (170, 140), (260, 126), (390, 136)),
            ((-4, 160), (90, 150), (200, 154), (300, 146), (390, 152)),
        ),
        strict=True,
    ):
        pen.fill([[*curve(*points), (390, 220), (-4, 220)]], colour)
    fence = pen.named("the fence")
    for x in range(270, 400, 24):
        fence.fill(rect(x, 140, 4, 24, (2, 2, 0, 0)), "#fff8ec")
    fence.fill(merge(rect(262, 146, 130, 3), rect(262, 154, 130, 3)), "#fff8ec")
    pen.fill([[*curve((-4, 168), (100, 160), (200, 164), (300, 160), (390, 165)), (390, 220), (-4, 220)]], look.grass)
    for i in range(22):
        x, y = (i * 53) % 384, 174 + (i * 29) % 40
        pen.fill(line([(x, y), (x + 2, y - 5)], 1.4), "#ffffff", alpha=0.28)
        pen.fill(line([(x + 3, y), (x + 6, y - 4)], 1.4), "#ffffff", alpha=0.28)


def _tree(pen: Pen, look: Look) -> None:
    pen.glow(168, 178, 84, 13, "#22301f", 0.4)
    pen.fill(
        [[*curve((150, 180), (158, 160), (158, 110)), *curve((180, 110), (180, 160), (190, 180))]],
        ("#8a6350", "#6b4a3d"),
    )
    pen.fill(merge(line([(168, 130), (140, 100)], 9, end=5), line([(170, 128), (198, 98)], 9, end=5)), "#7d5847")
    pen.fill(
        merge(circle(168, 58, 42), circle(124, 82, 32), circle(212, 82, 34), ellipse(168, 98, 58, 28)), look.crown[1]
    )
    pen.fill(
        merge(circle(166, 54, 38), circle(126, 78, 28), circle(208, 77, 30), ellipse(168, 92, 52, 24)), look.crown[0]
    )
    pen.fill(merge(circle(152, 46, 17), circle(116, 74, 12), circle(204, 68, 14)), look.crown[2])
    ladder = pen.named("the ladder")
    for x in (0, 15):
        ladder.fill(line([(268 + x, 184), (238 + x * 0.8, 78)], 3.4), "#d99f62")
    for k in range(7):
        u = (k + 0.7) / 8
        ladder.fill(line([(268 - 30 * u, 184 - 106 * u), (283 - 33 * u, 184 - 106 * u)], 2.6), "#c4864b")
    basket = pen.named("the basket").at(66, 196)
    pen.glow(66, 197, 34, 6, "#22301f", 0.4)
    handle = [(x, -20 - 24 * (1 - (x / 20) ** 2)) for x in range(-20, 21, 4)]
    basket.fill(line(handle, 3), "#a56f3f")
    basket.fill(polygon((-26, -22), (26, -22), (20, 2), (-20, 2)), ("#d79a5b", "#b3743c"))
    for row in range(3):
        for k in range(6):
            basket.fill(rect(-21 + 7.4 * k + 3.5 * (row % 2), -17 + 6 * row, 4.4, 2.4, 1), "#f0c48a")
    basket.fill(rect(-28, -25, 56, 5, 2.5), "#c4864b")


def orchard(video_id: str, look: Look, falls: list[tuple[str, float]], flight: float) -> Scene:
    """``falls``: which apple drops, and when; ``flight``: when the bird enters."""
    drop = dict(falls)

    def draw(pen: Pen, t: float) -> None:
        _tree(pen, look)
        for name, (x, y, rest_x, rest_y) in APPLES.items():
            start = drop.get(name, 1e9)
            u = min(1.0, max(0.0, (t - start) / FALL))
            px, py = x, y + (rest_y - y) * u * u
            if t > start + FALL:
                v = min(1.0, (t - start - FALL) / SETTLE)
                px, py = x + (rest_x - x) * v, rest_y - 30 * v * (1 - v)
            if u > 0:
                pen.glow(px, rest_y + 6, 12, 3, "#22301f", 0.45 * u)
            apple(pen.named(name).at(px, py, turn=(px - x) / 60))
        (along,) = path(t, [(flight, -34), (flight + 4.0, 418)])
        if -34 < along < 418:
            bird(pen.at(384 - along, 24 + 5 * wave(t, 1.6), stretch=-1, scale=1.1), t)

    def states(t: float) -> set[tuple[str, str]]:
        return {(name, "fall from the tree") for name, start in falls if start <= t < start + FALL + SETTLE}

    words = {"kind": "apple", "verb": "fall from the tree"}
    return Scene(
        video_id,
        60,
        THINGS,
        lambda pen: _backdrop(pen, look),
        draw,
        states,
        (Ask("count_events", words), Ask("count_before", {**words, "reference": "the bird"})),
    )


SCENES = (
    orchard(
        "orchard_summer",
        SUMMER,
        [("the low right apple", 0.6), ("the far left apple", 2.3), ("the middle apple", 6.8)],
        4.4,
    ),
    orchard(
        "orchard_autumn",
        AUTUMN,
        [
            ("the far right apple", 0.4),
            ("the low left apple", 2.1),
            ("the upper right apple", 3.9),
            ("the top apple", 7.4),
        ],
        5.6,
    ),
)
