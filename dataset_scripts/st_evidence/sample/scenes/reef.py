"""A reef: fish cross or look in and turn round, one of them twice; a turtle dives through the picture."""

from __future__ import annotations

import dataclasses

from geometry import arc, blob, circle, curve, ellipse, line, merge, polygon, rect, star
from motion import path, smooth, wave
from render import Pen

from scenes.base import Ask, Scene, Thing, nothing

FISH = (
    Thing("the plain yellow fish", "fish", "yellow"),
    Thing("the striped yellow fish", "fish", "yellow"),
    Thing("the pink fish", "fish", "pink"),
    Thing("the white fish", "fish", "white"),
    Thing("the orange fish", "fish", "orange"),
)
OTHERS = (
    Thing("the turtle", "turtle"),
    Thing("the coral", "fixture"),
    Thing("the starfish", "fixture"),
    Thing("the shell", "fixture"),
)
PAINTS = {
    "the plain yellow fish": (("#ffe27a", "#f7bb35"), "#e89a1c"),
    "the striped yellow fish": (("#ffe27a", "#f7bb35"), "#e89a1c"),
    "the pink fish": (("#ffb3c7", "#ef6f96"), "#d94f7d"),
    "the white fish": (("#ffffff", "#d6e4f2"), "#9db9d6"),
    "the orange fish": (("#ffab6b", "#f0702f"), "#d9691f"),
}


@dataclasses.dataclass(frozen=True)
class Look:
    """The water and what grows in it."""

    water: tuple[str, str]
    far: str
    near: str
    sand: tuple[str, str]
    coral: tuple[str, str]
    weed: tuple[str, str]


LAGOON = Look(
    ("#8fe3de", "#2a86b4"), "#4aa9c4", "#2f86ad", ("#f7e6bd", "#e2c48e"), ("#cfa0ea", "#9a6cc4"), ("#3fa58a", "#23756f")
)
DEEP = Look(
    ("#4fa3d8", "#1d2f6f"), "#345f9f", "#294a86", ("#b9a8c4", "#8d7fa8"), ("#8fe0cf", "#4fae9f"), ("#4a8fa0", "#2b5f80")
)


def fish(pen: Pen, name: str, t: float) -> None:
    """A fish that faces right, its middle on the origin; the tail beats with time."""
    paint, dark = PAINTS[name]
    beat = 3.0 * wave(t, 0.67)
    if name == "the white fish":  # long and slim
        body = blob((30, 0), (22, -7), (4, -10), (-16, -6), (-24, 0), (-16, 6), (4, 9), (22, 6))
        tail = blob((-20, 0), (-36, -10 + beat), (-31, beat), (-36, 10 + beat))
        fins = merge(blob((6, -8), (-6, -17), (-12, -7)), blob((2, 7), (-8, 14), (-10, 6)))
        eye = (20, -2)
    elif name == "the pink fish":  # round
        body = blob((22, 1), (16, -13), (0, -18), (-15, -11), (-19, 0), (-15, 11), (0, 17), (15, 13))
        tail = blob((-15, 0), (-31, -9 + beat), (-27, beat), (-31, 9 + beat))
        fins = merge(blob((6, -16), (-4, -24), (-12, -13)), blob((4, 15), (-5, 22), (-10, 13)))
        eye = (12, -4)
    else:
        body = blob((25, 1), (18, -9), (3, -14), (-14, -8), (-21, 0), (-14, 8), (3, 13), (18, 9))
        tail = blob((-17, 0), (-34, -12 + beat), (-29, beat), (-34, 12 + beat))
        fins = merge(blob((8, -12), (-4, -22), (-12, -9)), blob((4, 11), (-6, 19), (-9, 9)))
        eye = (15, -3)
    pen.fill(merge(tail, fins), dark)
    pen.fill(body, paint)
    if name == "the striped yellow fish":
        for x in (-13, -3, 7):
            pen.fill(
                blob((x - 2.5, -17), (x + 2.5, -17), (x + 4, 0), (x + 2.5, 17), (x - 2.5, 17), (x - 1, 0)),
                "#32406b",
                within=body,
            )
    if name == "the orange fish":
        for x in (-9, 6):
            pen.fill(
                blob((x - 3, -17), (x + 3, -17), (x + 4.5, 0), (x + 3, 17), (x - 3, 17), (x - 1, 0)),
                "#fff6ea",
                within=body,
            )
    if name == "the pink fish":
        for x, y, r in ((-7, -8, 2.2), (0, -12, 1.8), (-11, 0, 1.9), (-4, 3, 2.0)):
            pen.fill(circle(x, y, r), "#ffe1ea")
    pen.fill(blob((2, 2), (-6, -1 + beat * 0.5), (-10, 5 + beat * 0.5), (-4, 7)), dark)
    pen.fill(circle(*eye, 3.6), "#ffffff")
    pen.fill(circle(eye[0] + 1, eye[1], 2.0), "#1d2540")
    pen.fill(circle(eye[0] + 1.6, eye[1] - 0.8, 0.6), "#ffffff")


def turtle(pen: Pen, t: float) -> None:
    """A sea turtle that faces right."""
    pen = pen.named("the turtle")
    beat = 7 * wave(t, 1.5)
    skin, dark = ("#cfe3a0", "#96bd72"), "#7ba35f"
    pen.fill(blob((-26, 4), (-40, 12 - beat * 0.4), (-33, 2), (-24, -2)), dark)
    pen.fill(blob((24, -2), (34, -9), (44, -7), (46, 1), (38, 6), (26, 5)), skin)
    pen.fill(circle(40, -3, 1.8), "#27324a")
    shell = blob((30, 4), (22, -11), (2, -19), (-18, -13), (-30, 3), (-16, 9), (14, 9))
    pen.fill(shell, ("#b9794b", "#7d4a3c"))
    for x, y, r in ((-14, -4, 5), (0, -9, 6), (14, -4, 5)):
        pen.fill(star(x, y, r, inner=0.87, points=3, turn=0.08), "#dca871")
    pen.fill(arc(0, 3, 31, 8, 0.0, 0.5), "#f1dcae")
    pen.fill(blob((16, 4), (20, 6), (10, 24 + beat), (0, 30 + beat), (4, 16 + beat * 0.5), (6, 5)), skin)


def _backdrop(pen: Pen, look: Look) -> None:
    pen.fill(rect(0, 0, 384, 216), look.water)
    for x, width in ((48, 26), (120, 16), (196, 38), (292, 20), (352, 14)):
        ray = polygon((x, 0), (x + width, 0), (x + width * 1.6 - 70, 216), (x - width * 0.6 - 70, 216))
        pen.fill(ray, "#ffffff", alpha=0.08)
    pen.fill(
        [
            [
                *curve(
                    (-4, 150),
                    (40, 128),
                    (84, 140),
                    (120, 158),
                    (180, 150),
                    (250, 164),
                    (310, 136),
                    (350, 128),
                    (390, 142),
                ),
                (390, 220),
                (-4, 220),
            ]
        ],
        look.far,
    )
    pen.fill(
        [
            [
                *curve((-4, 176), (50, 158), (110, 170), (180, 178), (260, 172), (330, 156), (390, 164)),
                (390, 220),
                (-4, 220),
            ]
        ],
        look.near,
    )
    pen.fill(
        [[*curve((-4, 196), (60, 186), (140, 192), (220, 184), (300, 192), (390, 184)), (390, 220), (-4, 220)]],
        look.sand,
    )
    for x, y in ((30, 205), (96, 199), (150, 208), (226, 198), (288, 207), (350, 199)):
        pen.fill(ellipse(x, y, 5, 1.5), "#ffffff", alpha=0.35)
    coral = pen.named("the coral").at(314, 196)
    pen.glow(314, 196, 40, 6, "#10284a", 0.35)
    for points, width in (
        ([(0, 0), (-2, -22), (-16, -40), (-18, -56)], 9),
        ([(-2, -18), (10, -34), (12, -52)], 8),
        ([(0, -4), (-20, -18), (-30, -34)], 8),
        ([(2, -6), (22, -20), (30, -40)], 8),
        ([(12, -34), (22, -46)], 6),
        ([(-16, -36), (-8, -50)], 6),
    ):
        coral.fill(line(points, width, end=width * 0.75), look.coral[1])
        coral.fill(line([(x - 1, y - 1) for x, y in points], width * 0.45, end=width * 0.3), look.coral[0])
    sea_star = pen.named("the starfish").at(186, 199)
    pen.glow(186, 204, 18, 4, "#10284a", 0.3)
    sea_star.fill(star(0, 0, 13, inner=0.5, turn=0.03), ("#ffc27a", "#f0954a"))
    for i in range(5):
        x, y = star(0, 0, 7, turn=0.03)[0][2 * i]
        sea_star.fill(circle(x, y, 1.2), "#fff0d2")
    shell = pen.named("the shell").at(240, 207)
    pen.glow(240, 208, 18, 4, "#10284a", 0.3)
    shell.fill(blob((-13, 0), (-12, -9), (0, -15), (12, -9), (13, 0), (0, 3)), ("#fbe6f0", "#d9a9c9"))
    for x in (-7, 0, 7):
        shell.fill(line([(x * 0.3, 1), (x, -10)], 1), "#c58bb2")


def _weed(pen: Pen, look: Look, t: float) -> None:
    for x, height, phase in ((22, 70, 0.0), (38, 96, 0.3), (54, 58, 0.6), (70, 40, 0.2), (366, 52, 0.1)):
        points = [(x + 9 * (k / 5) * wave(t, 4.0, phase + 0.12 * k), 200 - height * k / 5) for k in range(6)]
        pen.fill(line(curve(*points, samples=4), 8, end=2.5), look.weed)


def _bubbles(pen: Pen, t: float) -> None:
    for k in range(9):
        rise = (t * (11 + 3 * (k % 4)) + 47 * k) % 230
        x = 30 + 43 * k + 5 * wave(t, 3.0, 0.17 * k)
        r = 1.8 + 0.7 * (k % 3)
        pen.fill(circle(x, 216 - rise, r), "#ffffff", alpha=0.35)
        pen.fill(circle(x - r * 0.3, 216 - rise - r * 0.3, r * 0.35), "#ffffff", alpha=0.6)


def _visit(start: float, side: int, y: float, depth: float, t: float) -> tuple[float, float, float] | None:
    """Looking in from one side and turning round: x, y and the heading, or ``None`` while outside."""
    length, turning = 2.3, 0.5
    swim = (length - turning) / 2
    u = t - start
    if not 0 <= u <= length:
        return None
    (along,) = path(
        u, [(0, -36), (swim, depth), (swim + turning / 2, depth + 8), (swim + turning, depth), (length, -36)]
    )
    heading = 1 - 2 * smooth((u - swim) / turning)
    heading = max(0.4, abs(heading)) * (1 if heading >= 0 else -1)
    return (along if side < 0 else 384 - along), y + 7 * u, heading * -side


def reef(
    video_id: str,
    look: Look,
    *,
    returns: tuple[str, list[tuple[float, int, float]]],
    crossings: list[tuple[str, float, int, float]],
    dive: float,
) -> Scene:
    """``returns``: who looks in, and when, from which side, at what height; ``dive``: when the turtle comes."""

    def draw(pen: Pen, t: float) -> None:
        _weed(pen, look, t)
        u = (t - dive) / 3.1
        if 0 <= u <= 1:
            points = curve((70, -34), (132, 62), (226, 72), (318, -36), samples=20)
            x, y = points[min(len(points) - 1, round(u * (len(points) - 1)))]
            turtle(pen.at(x, y, turn=0.09 - 0.18 * u), t)
        for name, start, direction, y in crossings:
            (along,) = path(t, [(start, -40), (start + 4.1, 424)])
            if -40 < along < 424:
                place = along if direction > 0 else 384 - along
                fish(pen.named(name).at(place, y + 3 * wave(t, 2.2), stretch=direction), name, t)
        for start, side, y in returns[1]:
            found = _visit(start, side, y, 92, t)
            if found:
                fish(pen.named(returns[0]).at(found[0], found[1], stretch=found[2], scale=1.05), returns[0], t)
        _bubbles(pen, t)

    return Scene(
        video_id,
        60,
        (*FISH, *OTHERS),
        lambda pen: _backdrop(pen, look),
        draw,
        nothing,
        (
            Ask("visits_twice", {"kind": "fish", "choices": [thing.name for thing in FISH]}),
            Ask(
                "when_seen",
                {
                    "subject": "the turtle",
                    "asks": "When does the turtle swim by?",
                    "reference": returns[0],
                    "by": "visits",
                },
            ),
        ),
    )


SCENES = (
    reef(
        "reef_lagoon",
        LAGOON,
        returns=("the striped yellow fish", [(0.3, -1, 70), (7.3, 1, 92)]),
        crossings=[
            ("the plain yellow fish", 1.2, -1, 132),
            ("the pink fish", 4.9, 1, 150),
            ("the white fish", 5.6, -1, 104),
        ],
        dive=3.3,
    ),
    reef(
        "reef_deep",
        DEEP,
        returns=("the pink fish", [(0.4, 1, 66), (3.6, -1, 96)]),
        crossings=[
            ("the striped yellow fish", 1.3, 1, 140),
            ("the plain yellow fish", 5.0, -1, 146),
            ("the orange fish", 3.0, -1, 48),
        ],
        dive=6.5,
    ),
)
