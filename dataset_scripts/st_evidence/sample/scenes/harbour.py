"""A harbour: a boat passes behind a tall rock, others before it, and the lighthouse flashes."""

from __future__ import annotations

import dataclasses

from geometry import blob, circle, curve, ellipse, line, merge, polygon, rect
from motion import during, path, wave
from render import Pen

from scenes.base import Ask, Scene, Thing

BOATS = (
    Thing("the sailing boat", "boat"),
    Thing("the fishing boat", "boat"),
    Thing("the rowing boat", "boat"),
    Thing("the ferry", "boat"),
)
FIXTURES = (Thing("the lighthouse", "fixture"), Thing("the rock", "occluder"), Thing("the buoy", "fixture"))
FLASH = 0.5


@dataclasses.dataclass(frozen=True)
class Look:
    """The light over the sea."""

    sky: tuple[str, str]
    sun: str
    hills: str
    sea: tuple[str, str]
    rock: tuple[str, str]
    cape: tuple[str, str]


SUNSET = Look(
    ("#6d5aa0", "#ffc59a"), "#ffe3ac", "#a77fa4", ("#e5a58f", "#3f5a8f"), ("#5d4a6e", "#3b3355"), ("#6b5577", "#4a3f63")
)
NIGHT = Look(
    ("#1b2450", "#5f6fae"), "#f4f1dc", "#3d4a86", ("#5f79b5", "#1e2b5a"), ("#39406e", "#222950"), ("#424a7c", "#2a315c")
)


def sailing_boat(pen: Pen) -> None:
    """Two white sails on a blue hull."""
    pen.fill(rect(-1, -46, 2, 40), "#5d4438")
    pen.fill(polygon((2, -45), (24, -9), (2, -9)), ("#ffffff", "#e4e7f2"))
    pen.fill(polygon((-3, -40), (-3, -9), (-19, -9)), ("#fff3dc", "#f2dcbb"))
    pen.fill(polygon((-1, -46), (9, -49), (-1, -52)), "#f7a23b")
    pen.fill(blob((-24, -8), (0, -7), (27, -8), (20, 1), (-18, 1)), ("#4f8fe0", "#2d5aa8"))
    pen.fill(rect(-22, -6, 45, 2), "#ffffff")


def fishing_boat(pen: Pen) -> None:
    """An orange trawler with a cabin."""
    pen.fill(line([(-15, -12), (-15, -38)], 2), "#4b3b3a")
    pen.fill(line([(-15, -37), (-27, -18)], 1.2), "#4b3b3a")
    pen.fill(rect(-6, -28, 20, 18, (3, 3, 0, 0)), ("#ffffff", "#dfe3ee"))
    pen.fill(rect(-8, -31, 24, 4, 2), "#35558f")
    pen.fill(merge(rect(-3, -24, 6, 6, 1), rect(6, -24, 6, 6, 1)), "#6fa9cf")
    pen.fill(blob((-27, -14), (-10, -11), (14, -11), (32, -18), (24, 1), (-21, 1)), ("#ff9d57", "#e0672a"))
    pen.fill(rect(-25, -8, 50, 2.2), "#fff1dc")


def rowing_boat(pen: Pen, t: float) -> None:
    """One rower, two oars that dip."""
    swing = 5 * wave(t, 1.4)
    pen.fill(blob((-7, -8), (-5, -22), (3, -22), (6, -8)), ("#ffd75a", "#f0b12e"))
    pen.fill(circle(-0.5, -27, 5), "#f3c7a5")
    pen.fill(blob((-6, -28), (-1, -34), (5, -28), (0, -30)), "#4a3a3f")
    pen.fill(blob((-29, -11), (0, -8), (29, -11), (20, 1), (-20, 1)), ("#a86f4a", "#7a4b34"))
    pen.fill(line([(2, -15), (-18 - swing, 2)], 1.8, end=3.4), "#f4e4c8")


def ferry(pen: Pen) -> None:
    """A white ferry with two decks."""
    pen.fill(rect(8, -46, 11, 14, (2, 2, 0, 0)), "#4f8fe0")
    pen.fill(rect(8, -42, 11, 3), "#ffffff")
    pen.fill(rect(-26, -34, 50, 14, (3, 5, 0, 0)), ("#ffffff", "#e7ebf4"))
    pen.fill(rect(-40, -22, 78, 12, (3, 4, 0, 0)), ("#ffffff", "#dfe4ef"))
    for k in range(6):
        pen.fill(rect(-22 + 7.6 * k, -30, 5, 5, 1), "#5f9ecb")
    for k in range(9):
        pen.fill(rect(-36 + 8 * k, -18, 5, 4.6, 1), "#5f9ecb")
    pen.fill(blob((-47, -11), (0, -10), (50, -12), (42, 2), (-40, 2)), ("#35699f", "#27497c"))


def _boat(pen: Pen, name: str, t: float) -> None:
    pen = pen.named(name)
    if name == "the sailing boat":
        sailing_boat(pen)
    elif name == "the fishing boat":
        fishing_boat(pen)
    elif name == "the rowing boat":
        rowing_boat(pen, t)
    else:
        ferry(pen)


def _backdrop(pen: Pen, look: Look) -> None:
    pen.fill(rect(0, 0, 384, 122), look.sky)
    if look is NIGHT:
        for i in range(34):
            pen.fill(circle((i * 97 + 13) % 384, (i * 41) % 92, 0.6 + 0.35 * (i % 3)), "#ffffff", alpha=0.75)
    pen.glow(70, 84 if look is SUNSET else 40, 110, 90, look.sun, 0.75)
    pen.fill(circle(70, 84 if look is SUNSET else 40, 19), look.sun)
    pen.fill(
        [
            [
                *curve((-4, 112), (40, 104), (90, 112), (150, 100), (220, 112), (290, 106), (390, 112)),
                (390, 124),
                (-4, 124),
            ]
        ],
        look.hills,
    )
    pen.fill(rect(0, 120, 384, 96), look.sea)
    for i in range(20):
        y = 126 + (i * 37) % 86
        x, width = (i * 71) % 384, 12 + (i * 13) % 26
        pen.fill(rect(x, y, width, 1.6, 0.8), "#ffffff", alpha=0.20)
    for k in range(7):
        pen.fill(rect(70 - 16 + 2 * (k % 3), 124 + 8 * k, 32 - 3 * k, 2, 1), look.sun, alpha=0.55)
    pen.fill([[*curve((286, 132), (304, 118), (330, 110), (362, 112), (392, 104)), (392, 134)]], look.cape)


def _lighthouse(pen: Pen, lit: bool) -> None:
    if lit:
        pen.glow(340, 44, 64, 60, "#fff3b0", 0.95)
    tower = pen.named("the lighthouse").at(340, 112)
    tower.fill(polygon((-12, 0), (-8, -58), (8, -58), (12, 0)), ("#ffffff", "#dcdff0"))
    for low, high in ((6, 17), (29, 40)):

        def side(y: float) -> float:
            return 12 - 4 * y / 58

        tower.fill(polygon((-side(low), -low), (-side(high), -high), (side(high), -high), (side(low), -low)), "#e2694d")
    tower.fill(rect(-3, -9, 6, 9, (3, 3, 0, 0)), "#4a3f63")
    tower.fill(rect(-11, -61, 22, 4, 1), "#39335a")
    tower.fill(rect(-6.5, -75, 13, 14), "#fff3a8" if lit else "#7b86a8")
    tower.fill(merge(rect(-6.5, -75, 1.4, 14), rect(5.1, -75, 1.4, 14), rect(-0.7, -75, 1.4, 14)), "#39335a")
    tower.fill(polygon((-9, -75), (9, -75), (0, -86)), "#39335a")
    if lit:
        x, y = 340, 44
        for k in range(12):  # layers of growing reach: the beam fades with the distance and towards its rim
            reach, spread = 90 + 27 * k, 9 + 3.2 * k
            beam = polygon((x, y - 3), (x - reach, y - spread), (x - reach, y + spread), (x, y + 3))
            pen.fill(beam, "#fff6c4", alpha=0.055)
        pen.fill(polygon((x, y - 3), (x + 60, y - 9), (x + 60, y + 9), (x, y + 3)), "#fff6c4", alpha=0.35)
        pen.glow(x, y, 22, 18, "#fffbe6", 0.8)


def _rock(pen: Pen, look: Look) -> None:
    rock = pen.named("the rock")
    rock.fill(
        blob(
            (130, 146),
            (131, 112),
            (141, 84),
            (160, 70),
            (176, 58),
            (200, 52),
            (222, 60),
            (240, 66),
            (262, 82),
            (276, 108),
            (280, 146),
            samples=4,
        ),
        look.rock,
    )
    rock.fill(polygon((176, 60), (196, 56), (186, 96), (168, 132), (158, 140), (166, 96)), look.cape[0])
    rock.fill(polygon((228, 66), (244, 76), (252, 116), (240, 140), (236, 100)), look.cape[0])
    pen.fill(blob((120, 147), (160, 142), (206, 144), (250, 142), (290, 147), (206, 152)), "#ffffff", alpha=0.55)


def _sail(pen: Pen, x: float, y: float, name: str, direction: int, t: float, scale: float) -> None:
    rock = 1.2 * wave(t, 2.4, x / 900)
    pen.fill(ellipse(x, y + 1, 34 * scale, 3.4 * scale), "#16204a", alpha=0.28)
    _boat(pen.at(x, y + rock, stretch=direction, scale=scale), name, t)
    # A wave laps over the waterline: water is scenery, so the hull below it is hidden.
    pen.fill(
        blob(
            (x - 30 * scale, y + 3), (x - 12 * scale, y), (x + 6 * scale, y + 1.2), (x + 30 * scale, y + 3), (x, y + 5)
        ),
        "#ffffff",
        alpha=0.5,
    )


def harbour(
    video_id: str,
    look: Look,
    *,
    far: tuple[str, int, float, float],
    near: list[tuple[str, int, float, float, float]],
    flashes: list[float],
) -> Scene:
    """``far`` and ``near``: boat, direction, where it is at the start, pixels a second, and (near) its waterline."""
    spans = [(start, start + FLASH) for start in flashes]

    def place(t: float, direction: int, x: float, speed: float) -> float:
        (along,) = path(t, [(0, x), (20, x + 20 * speed)])
        return along if direction > 0 else 384 - along

    def draw(pen: Pen, t: float) -> None:
        _lighthouse(pen, during(t, spans))
        name, direction, x, speed = far
        _sail(pen, place(t, direction, x, speed), 138, name, direction, t, 0.95)
        _rock(pen, look)
        buoy = pen.named("the buoy").at(60, 190 + wave(t, 2.0), turn=0.012 * wave(t, 2.6))
        buoy.fill(polygon((-7, 2), (-4, -18), (4, -18), (7, 2)), ("#ffd75a", "#eeaf2c"))
        buoy.fill(circle(0, -21, 3.4), "#fff3c8")
        buoy.fill(rect(-6, -8, 12, 4), "#2f3a66")
        pen.fill(ellipse(60, 193, 13, 2.4), "#ffffff", alpha=0.45)
        for name, direction, x, speed, y in near:
            _sail(pen, place(t, direction, x, speed), y, name, direction, t, y / 160)

    def states(t: float) -> set[tuple[str, str]]:
        return {("the lighthouse", "flash")} if during(t, spans) else set()

    return Scene(
        video_id,
        60,
        (*BOATS, *FIXTURES),
        lambda pen: _backdrop(pen, look),
        draw,
        states,
        (
            Ask("count_times", {"subject": "the lighthouse", "verb": "flash"}),
            Ask("passes_behind", {"kind": "boat", "occluder": "the rock", "choices": [thing.name for thing in BOATS]}),
            Ask(
                "when_event",
                {
                    "subject": "the lighthouse",
                    "verb": "flash",
                    "asks": "When does the lighthouse flash?",
                    "reference": far[0],
                    "by": "hiding",
                },
            ),
        ),
    )


SCENES = (
    harbour(
        "harbour_sunset",
        SUNSET,
        far=("the sailing boat", 1, 6, 54),
        near=[("the rowing boat", -1, 144, 12, 166), ("the ferry", -1, -120, 66, 188)],
        flashes=[5.9, 7.3, 8.3],
    ),
    harbour(
        "harbour_night",
        NIGHT,
        far=("the fishing boat", -1, 4, 53),
        near=[("the rowing boat", 1, 150, 15, 164), ("the sailing boat", 1, -170, 58, 192)],
        flashes=[2.6, 3.4],
    ),
)
