"""A house at night: windows light up one after another."""

from __future__ import annotations

import dataclasses

from geometry import circle, curve, ellipse, line, merge, polygon, rect
from motion import during, wave
from render import Pen

from scenes.base import Ask, Scene, Thing

WINDOWS = {
    "the top left window": (118, 99),
    "the top middle window": (192, 99),
    "the top right window": (266, 99),
    "the bottom left window": (118, 157),
    "the bottom right window": (266, 157),
    "the round window": (192, 46),
}
THINGS = (
    *(Thing(name, "window") for name in WINDOWS),
    Thing("the front door", "fixture"),
    Thing("the left tree", "fixture"),
    Thing("the right tree", "fixture"),
    Thing("the moon", "fixture"),
)


@dataclasses.dataclass(frozen=True)
class Look:
    """Night sky and walls."""

    sky: tuple[str, str]
    hill: str
    wall: tuple[str, str]
    roof: tuple[str, str]
    frame: str
    door: str
    lawn: tuple[str, str]
    tree: tuple[str, str]


BLUE = Look(
    ("#1b2350", "#56609f"),
    "#333c74",
    ("#6f7fb3", "#58679c"),
    ("#2f3566", "#3f4780"),
    "#dfe6f7",
    "#c7795a",
    ("#3f5c78", "#2c4360"),
    ("#3f6a7a", "#2a4a60"),
)
ROSE = Look(
    ("#2b1f4a", "#8a5d88"),
    "#52376b",
    ("#c98f86", "#a96f73"),
    ("#4d2f52", "#623b5f"),
    "#fbe9dd",
    "#3f5f8a",
    ("#5d5a70", "#454158"),
    ("#5b5f7c", "#3f4262"),
)


def _backdrop(pen: Pen, look: Look) -> None:
    pen.fill(rect(0, 0, 384, 186), look.sky)
    for i in range(40):
        pen.fill(circle((i * 83 + 7) % 384, (i * 37) % 120, 0.6 + 0.3 * (i % 3)), "#ffffff", alpha=0.7)
    pen.glow(52, 40, 60, 60, "#f4efd8", 0.55)
    moon = pen.named("the moon")
    moon.fill(circle(52, 40, 17), ("#fdf9e6", "#ece4c4"))
    for x, y, r in ((46, 35, 3.4), (58, 45, 4.2), (55, 32, 2)):
        moon.fill(circle(x, y, r), "#e0d6b2")
    pen.fill(
        [[*curve((-4, 160), (60, 138), (130, 156), (260, 140), (330, 150), (390, 134)), (390, 200), (-4, 200)]],
        look.hill,
    )
    pen.fill(rect(0, 184, 384, 32), look.lawn)
    pen.fill(polygon((178, 186), (206, 186), (226, 216), (158, 216)), "#a99fb3")
    for name, x, height in (("the left tree", 40, 92), ("the right tree", 346, 110)):
        tree = pen.named(name).at(x, 192)
        pen.glow(x, 192, 30, 6, "#0d1028", 0.5)
        tree.fill(rect(-4, -24, 8, 24), "#5a4450")
        for k in range(3):
            y, half = -18 - k * height * 0.24, 27 - 5.5 * k
            tree.fill(polygon((-half, y), (0, y - height * 0.46), (half, y)), look.tree)
    pen.glow(192, 190, 150, 10, "#0d1028", 0.5)
    pen.fill(rect(72, 66, 240, 122), look.wall)
    for k in range(12):
        pen.fill(rect(72, 74 + 10 * k, 240, 1), "#ffffff", alpha=0.10)
    pen.fill(polygon((56, 70), (112, 20), (272, 20), (328, 70)), look.roof)
    for k in range(5):
        y = 26 + 10 * k
        inset = 56 * (70 - y) / 50
        pen.fill(rect(56 + inset, y, 272 - 2 * inset, 1.2), "#ffffff", alpha=0.12)
    pen.fill(merge(rect(246, 12, 20, 26), rect(243, 8, 26, 6, 2)), look.door)
    pen.fill(rect(54, 67, 276, 5, 2), look.frame)
    pen.fill(polygon((154, 70), (192, 18), (230, 70)), look.wall)
    pen.fill(line([(152, 71), (192, 17), (232, 71)], 4), look.frame)
    door = pen.named("the front door")
    pen.fill(rect(171, 128, 42, 60, (8, 8, 0, 0)), look.frame)
    door.fill(rect(175, 132, 34, 56, (6, 6, 0, 0)), look.door)
    door.fill(
        merge(
            rect(180, 140, 10, 16, 1), rect(194, 140, 10, 16, 1), rect(180, 162, 10, 18, 1), rect(194, 162, 10, 18, 1)
        ),
        "#ffffff",
    )
    door.fill(
        merge(rect(181, 141, 8, 14, 1), rect(195, 141, 8, 14, 1), rect(181, 163, 8, 16, 1), rect(195, 163, 8, 16, 1)),
        look.door,
    )
    door.fill(circle(206, 160, 1.6), "#ffdf8a")
    pen.fill(merge(rect(166, 186, 52, 4, 1), rect(160, 190, 64, 4, 1)), look.frame)


def _window(pen: Pen, look: Look, name: str, lit: bool) -> None:
    x, y = WINDOWS[name]
    glass = ("#fff3b8", "#ffcf6b") if lit else ("#2c3562", "#3a4478")
    own = pen.named(name)
    if name == "the round window":
        own.fill(circle(x, y + 4, 16), look.frame)
        own.fill(circle(x, y + 4, 13), glass)
        own.fill(merge(rect(x - 1, y - 9, 2, 26), rect(x - 13, y + 3, 26, 2)), look.frame)
    else:
        own.fill(rect(x - 24, y - 20, 48, 42, 2), look.frame)
        pane = rect(x - 20.5, y - 16.5, 41, 35)
        own.fill(pane, glass)
        if lit:
            for side in (-1, 1):
                p = own.at(x, y, stretch=side)
                p.fill([[(6, -16.5), (20.5, -16.5), (20.5, 18.5), (15, 18.5), (14, 0)]], "#f2a477")
        else:
            own.fill(
                polygon((x - 14, y - 16.5), (x - 4, y - 16.5), (x - 18, y + 18.5), (x - 20.5, y + 18.5), (x - 20.5, y)),
                "#465189",
            )
        own.fill(merge(rect(x - 1, y - 16.5, 2, 35), rect(x - 20.5, y - 1, 41, 2)), look.frame)
        own.fill(rect(x - 27, y + 21, 54, 4, 1), look.frame)
    if lit:
        pen.glow(x, y + 2, 54, 46, "#ffe39a", 0.5)


def house(video_id: str, look: Look, lights: list[tuple[str, float, float]]) -> Scene:
    """``lights``: window, when its light goes on, and when off."""

    def draw(pen: Pen, t: float) -> None:
        for k in range(4):  # smoke
            u = (t / 3.2 + k / 4) % 1.0
            pen.fill(
                ellipse(257 + 3 * wave(t, 3.0, 0.25 * k) + 46 * u, 6 - 8 * u, 4 + 8 * u, 3 + 4 * u),
                "#ffffff",
                alpha=0.24 * (1 - u),
            )
        for name in WINDOWS:
            _window(pen, look, name, any(n == name and during(t, [(a, b)]) for n, a, b in lights))

    def states(t: float) -> set[tuple[str, str]]:
        return {(name, "light up") for name, a, b in lights if a <= t < b}

    words = {"kind": "window", "verb": "light up", "choices": list(WINDOWS)}
    return Scene(
        video_id,
        54,
        THINGS,
        lambda pen: _backdrop(pen, look),
        draw,
        states,
        (
            Ask("first_event", {**words, "asks": "Which window lights up first?"}),
            Ask("event_before", {**words, "verbs": "lights up", "reference": "the round window"}),
            Ask("count_events", words),
        ),
    )


SCENES = (
    house(
        "house_blue",
        BLUE,
        [
            ("the top right window", 0.8, 2.0),
            ("the bottom left window", 2.6, 3.6),
            ("the round window", 5.4, 6.6),
        ],
    ),
    house(
        "house_rose",
        ROSE,
        [
            ("the bottom right window", 0.5, 1.3),
            ("the top left window", 2.0, 2.8),
            ("the top right window", 4.6, 5.5),
            ("the round window", 7.1, 8.0),
        ],
    ),
)
