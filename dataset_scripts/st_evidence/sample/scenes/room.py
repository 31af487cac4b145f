"""A living room: the door opens and closes, something comes in, and the lamp goes on for a moment."""

from __future__ import annotations

import dataclasses
import math

from geometry import blob, circle, curve, ellipse, line, merge, polygon, rect
from motion import during, path, ramp, wave
from render import Pen

from scenes.base import FPS, Ask, Scene, Thing

VISITORS = (
    Thing("the cat", "visitor"),
    Thing("the toy robot", "visitor"),
    Thing("the ball", "visitor"),
    Thing("the toy duck", "visitor"),
)
FIXTURES = (
    Thing("the door", "fixture"),
    Thing("the lamp", "fixture"),
    Thing("the sofa", "fixture"),
    Thing("the plant", "fixture"),
    Thing("the picture", "fixture"),
)
DOOR = (296.0, 46.0, 54.0, 106.0)  # x, y, width, height of the doorway
SWING = 0.5


@dataclasses.dataclass(frozen=True)
class Look:
    """Wall, floor and the light outside."""

    wall: tuple[str, str]
    floor: tuple[str, str]
    board: str
    outside: tuple[str, str]
    sofa: tuple[str, str]
    rug: str
    door: tuple[str, str]
    hall: tuple[str, str]


DAY = Look(
    ("#fbeedd", "#f2dcc3"),
    ("#d8a878", "#b98355"),
    "#fffaf2",
    ("#a5dcf5", "#e9f6f5"),
    ("#4f9aa3", "#34747f"),
    "#f0c7a4",
    ("#fdfaf3", "#e2d8c8"),
    ("#b9cdd3", "#8fa9b3"),
)
EVENING = Look(
    ("#6f6796", "#575080"),
    ("#6d5468", "#533d55"),
    "#857cab",
    ("#2c2f66", "#c77f8e"),
    ("#c98a5d", "#a3663f"),
    "#7d6a93",
    ("#b7add2", "#8e84b0"),
    ("#3b3762", "#2c294e"),
)


def cat(pen: Pen, t: float, *, walking: bool) -> None:
    """A ginger cat that faces right, its paws on the origin."""
    coat, dark = ("#f2a65a", "#dd8340"), "#b9622c"
    step = 3.0 * wave(t, 0.67) if walking else 0.0
    tail = curve((-17, -18), (-28, -21), (-33, -31 + step * 0.5), (-28, -43 + step), samples=5)
    pen.fill(line(tail, 5, end=3.6), dark)
    for x, lift in ((-14, step), (-8, -step), (9, -step), (15, step)):
        pen.fill(line([(x, -12), (x + lift, -1.6)], 5), coat[1])
    pen.fill(blob((-21, -19), (-10, -24), (10, -24), (20, -20), (20, -10), (8, -8), (-12, -8), (-21, -11)), coat)
    for x in (-12, -3, 6):
        pen.fill(line([(x, -23.5), (x - 1.5, -15)], 2.4, end=1.4), dark)
    pen.fill(merge(polygon((12, -30), (14, -42), (21, -34)), polygon((23, -34), (31, -42), (31, -29))), coat[0])
    pen.fill(blob((11, -28), (15, -35), (27, -35), (33, -28), (29, -20), (22, -18), (14, -21)), coat)
    pen.fill(merge(circle(19, -28, 1.7), circle(27, -28, 1.7)), "#30303f")
    pen.fill(blob((20, -23), (23, -25), (26, -23), (23, -20)), "#fff3e2")
    pen.fill(polygon((21.6, -24.6), (24.4, -24.6), (23, -23)), "#c8524a")


def robot(pen: Pen, t: float) -> None:
    """A toy robot on wheels."""
    blink = 0.5 + 0.5 * wave(t, 1.0)
    for x in (-11, 11):
        pen.fill(circle(x, -6, 6), "#2f3550")
        pen.fill(circle(x, -6, 2.4), "#aeb7d4")
    pen.fill(line([(-15, -24), (-23, -15 + 3 * blink)], 4.5), "#7e8cb8")
    pen.fill(rect(-16, -32, 32, 24, 5), ("#8fd0f0", "#4f9fd0"))
    pen.fill(line([(15, -24), (23, -17 - 3 * blink)], 4.5), "#7e8cb8")
    pen.fill(rect(-10, -27, 20, 9, 2), "#eef7ff")
    for k, colour in enumerate(("#f7a23b", "#7d5fc0", "#3aa08f")):
        pen.fill(circle(-6 + 6 * k, -22.5, 2), colour)
    pen.fill(line([(0, -50), (0, -56)], 1.6), "#7e8cb8")
    pen.fill(circle(0, -57, 2.6), "#f7a23b")
    pen.fill(rect(-12, -50, 24, 17, 5), ("#dcecfa", "#a9c6e4"))
    for x in (-5, 5):
        pen.fill(circle(x, -42, 3.4), "#25304f")
        pen.fill(circle(x + 0.8, -42.8, 1.1), "#ffffff")


def duck(pen: Pen) -> None:
    """A rubber duck that faces right."""
    pen.fill(
        blob((-19, -14), (-9, -15), (4, -15), (14, -12), (15, -5), (8, 0), (-9, 0), (-16, -5)), ("#ffe37a", "#f4b532")
    )
    pen.fill(circle(8, -21, 9.5), ("#ffe98f", "#fbc94a"))
    pen.fill(blob((15, -22), (23, -20), (16, -17)), "#f0802f")
    pen.fill(circle(10, -23, 1.8), "#30303f")
    pen.fill(blob((-12, -11), (-3, -12), (3, -8), (-6, -4)), "#eba425")


def ball(pen: Pen) -> None:
    """A beach ball with three colours."""
    disc = circle(0, -12, 12)
    pen.fill(disc, "#ffffff")
    for k, colour in enumerate(("#5f8fe0", "#f7a23b", "#7d5fc0")):
        a, b = 2 * math.pi * (k / 3), 2 * math.pi * (k / 3 + 0.19)
        pen.fill(
            polygon((0, -14), (20 * math.cos(a), -14 + 20 * math.sin(a)), (20 * math.cos(b), -14 + 20 * math.sin(b))),
            colour,
            within=disc,
        )
    pen.fill(circle(0, -14, 2.2), "#ffffff")


def _visitor(pen: Pen, name: str, t: float, walking: bool = False) -> None:
    pen.glow(0, -1, 26, 5, "#2a1a20", 0.45)
    pen = pen.named(name)
    if name == "the cat":
        cat(pen, t, walking=walking)
    elif name == "the toy robot":
        robot(pen, t if walking else 0.0)
    elif name == "the ball":
        ball(pen)
    else:
        duck(pen)


def _backdrop(pen: Pen, look: Look) -> None:
    pen.fill(rect(0, 0, 384, 152), look.wall)
    for x in range(14, 384, 32):
        pen.fill(rect(x, 0, 12, 144), "#ffffff", alpha=0.10 if look is DAY else 0.035)
    pen.fill(rect(0, 152, 384, 64), look.floor)
    for k, y in enumerate((164, 180, 200)):
        pen.fill(rect(0, y, 384, 1.2), "#3a2418", alpha=0.14)
        for x in range(20 + 37 * k, 384, 96):
            pen.fill(rect(x, y, 1.2, 16 + 4 * k), "#3a2418", alpha=0.14)
    pen.fill(rect(0, 145, 384, 8), look.board)
    pen.fill(rect(26, 26, 78, 74, 3), "#ffffff")
    pen.fill(rect(31, 31, 68, 64), look.outside)
    pen.fill(
        [[(31, 95), (31, 82), (48, 72), (66, 84), (84, 76), (99, 86), (99, 95)]],
        "#7fae9b" if look is DAY else "#3d3f70",
    )
    pen.fill(merge(rect(63, 31, 4, 64), rect(31, 61, 68, 3)), "#ffffff")
    curtain = "#f0a58a" if look is DAY else "#8f78b4"
    for side in (-1, 1):
        p = pen.at(65, 20, stretch=side)
        p.fill(blob((26, 0), (48, 0), (50, 40), (47, 88), (36, 88), (38, 50), (30, 26)), curtain)
        p.fill(line([(44, 4), (44, 84)], 1.4), "#ffffff", alpha=0.25)
    pen.fill(rect(10, 16, 110, 4, 2), "#8a5f45" if look is DAY else "#433a68")
    pen.fill(ellipse(188, 190, 104, 19), look.rug)
    pen.fill(ellipse(188, 190, 92, 15), "#ffffff", alpha=0.22)
    picture = pen.named("the picture")
    pen.glow(184, 60, 46, 36, "#2a1a20", 0.22)
    picture.fill(rect(152, 32, 60, 44, 2), "#a8744f" if look is DAY else "#3f3562")
    picture.fill(rect(156, 36, 52, 36), ("#ffe7c2", "#f7c9a0"))
    picture.fill(circle(194, 48, 6), "#f29a55")
    picture.fill([[(156, 72), (156, 62), (172, 50), (186, 64), (194, 58), (208, 68), (208, 72)]], "#5f8f9c")
    plant = pen.named("the plant").at(38, 178)
    pen.glow(38, 178, 30, 6, "#2a1a20", 0.4)
    for x, y, bend in ((-24, -58, -8), (-12, -72, -3), (2, -78, 2), (16, -68, 6), (26, -52, 10)):
        plant.fill(
            blob((0, -22), (x * 0.5 + bend, y * 0.6), (x, y), (x * 0.5 + bend + 8, y * 0.55)), ("#6cb494", "#2f7a66")
        )
    plant.fill(polygon((-15, -26), (15, -26), (11, 0), (-11, 0)), ("#f3efe7", "#cfc6ba"))
    sofa = pen.named("the sofa")
    pen.glow(182, 172, 84, 10, "#2a1a20", 0.45)
    sofa.fill(merge(rect(124, 166, 6, 9), rect(234, 166, 6, 9)), "#6b4a36")
    sofa.fill(rect(122, 108, 120, 50, (12, 12, 4, 4)), look.sofa[1])
    sofa.fill(merge(rect(130, 112, 50, 36, 8), rect(184, 112, 50, 36, 8)), look.sofa)
    sofa.fill(rect(124, 144, 116, 24, 6), look.sofa)
    sofa.fill(merge(rect(112, 126, 20, 42, (9, 9, 4, 4)), rect(232, 126, 20, 42, (9, 9, 4, 4))), look.sofa)
    sofa.fill(rect(140, 122, 26, 24, 5), "#ffd98a" if look is DAY else "#e7c7ef")


def _lamp(pen: Pen, lit: bool) -> None:
    if lit:
        pen.glow(270, 82, 92, 84, "#ffe08a", 0.8)
        pen.fill(polygon((251, 90), (289, 90), (330, 168), (210, 168)), "#ffedb0", alpha=0.2)
    lamp = pen.named("the lamp")
    lamp.fill(line([(270, 168), (270, 84)], 2.6), "#4a3f4a")
    lamp.fill(ellipse(270, 168, 13, 3.4), "#4a3f4a")
    lamp.fill(
        polygon((258, 64), (282, 64), (289, 90), (251, 90)), ("#fff4b0", "#ffc94d") if lit else ("#c9bfb6", "#a89c96")
    )
    if lit:
        pen.glow(270, 84, 22, 18, "#fffbe0", 0.9)


def _doorway(pen: Pen, look: Look) -> None:
    x, y, width, height = DOOR
    pen.fill(rect(x, y, width, height), look.hall)
    pen.fill(
        polygon((x, y + height), (x, y + height - 12), (x + width, y + height - 12), (x + width, y + height)),
        look.floor[1],
    )
    pen.fill(rect(x + 20, y + 22, 20, 26, 1), "#ffffff", alpha=0.5)


def _door(pen: Pen, look: Look, opened: float) -> None:
    """The leaf, hinged on the left and swinging into the hall."""
    x, y, width, height = DOOR
    angle = opened * 2 * math.pi * 0.21
    reach, shrink = width * math.cos(angle), 9 * math.sin(angle)

    def at(u: float, v: float) -> tuple[float, float]:
        return x + reach * u, y + shrink * u + (height - 1.7 * shrink * u) * v

    def panel(u0: float, v0: float, u1: float, v1: float) -> list:
        return polygon(at(u0, v0), at(u1, v0), at(u1, v1), at(u0, v1))

    door = pen.named("the door")
    door.fill(panel(0, 0, 1, 1), look.door)
    for u0, v0, u1, v1 in ((0.14, 0.08, 0.86, 0.44), (0.14, 0.54, 0.86, 0.92)):
        door.fill(panel(u0, v0, u1, v1), look.door[1])
        door.fill(panel(u0 + 0.05, v0 + 0.03, u1 - 0.05, v1 - 0.03), look.door)
    door.fill(panel(0.86, 0.47, 0.95, 0.51), "#c58f3c")
    if opened:
        pen.fill(panel(0, 0, 1, 1), "#20162a", alpha=0.28 * opened)
    pen.fill(
        merge(
            rect(x - 6, y - 6, 6, height + 6), rect(x + width, y - 6, 6, height + 6), rect(x - 6, y - 6, width + 12, 6)
        ),
        look.board,
    )
    pen.fill(merge(rect(x - 1, y, 1, height), rect(x + width, y, 1, height)), "#20162a", alpha=0.2)


def room(
    video_id: str,
    look: Look,
    *,
    openings: list[tuple[float, float]],
    visitor: tuple[str, float, float],
    around: list[tuple[str, float, float]],
    light: tuple[float, float],
) -> Scene:
    """A room.

    ``openings``: when the door is open; ``visitor``: who enters, when, and where it stops; ``around``: who is there
    already; ``light``: when the lamp is on.
    """
    name, start, stop = visitor
    entry = 2.2

    def draw(pen: Pen, t: float) -> None:
        _lamp(pen, during(t, [light]))
        _doorway(pen, look)
        x, y, scale = path(t, [(start, 322, 150, 0.72), (start + 0.6, 312, 162, 0.85), (start + entry, stop, 189, 1.0)])
        walking = start <= t < start + entry
        side = -1 if t < start + entry + 0.3 else 1
        waiting = min(openings, key=lambda span: abs(span[0] - start))[0] - 0.2 <= t <= start
        if waiting:
            _visitor(pen.at(x, y, scale=scale, stretch=side), name, t)
        opened = max(ramp(t, a - 1 / FPS, a + SWING) - ramp(t, b - SWING, b) for a, b in openings)
        _door(pen, look, opened)
        for other, ox, oy in around:
            _visitor(pen.at(ox, oy), other, 0.0)
        if t > start:
            _visitor(pen.at(x, y, scale=scale, stretch=side), name, t, walking)

    def states(t: float) -> set[tuple[str, str]]:
        out = set()
        if during(t, openings):
            out.add(("the door", "open"))
        if during(t, [light]):
            out.add(("the lamp", "on"))
        if start - SWING <= t < start + entry:
            out.add((name, "come in through the door"))
        return out

    return Scene(
        video_id,
        60,
        (*VISITORS, *FIXTURES),
        lambda pen: _backdrop(pen, look),
        draw,
        states,
        (
            Ask(
                "who_does",
                {"kind": "visitor", "verb": "come in through the door", "verbs": "comes in through the door"},
            ),
            Ask("count_times", {"subject": "the door", "verb": "open"}),
            Ask(
                "when_event",
                {
                    "subject": "the lamp",
                    "verb": "on",
                    "asks": "When is the lamp on?",
                    "reference": "the door",
                    "by": "open",
                },
            ),
        ),
    )


SCENES = (
    room(
        "room_day",
        DAY,
        openings=[(0.8, 2.3), (5.3, 7.8)],
        visitor=("the cat", 6.0, 214),
        around=[("the ball", 128, 198), ("the toy robot", 84, 190)],
        light=(3.0, 4.4),
    ),
    room(
        "room_evening",
        EVENING,
        openings=[(0.5, 2.8), (4.7, 6.1), (8.0, 9.2)],
        visitor=("the toy robot", 1.2, 206),
        around=[("the ball", 262, 201), ("the toy duck", 120, 196)],
        light=(5.0, 5.8),
    ),
)
