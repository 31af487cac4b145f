"""A night sky over a lake: shooting stars, and travellers that cross one after another."""

from __future__ import annotations

import dataclasses

from geometry import arc, blob, circle, curve, ellipse, line, merge, polygon, rect
from motion import path, wave
from render import Pen

from scenes.base import Ask, Scene, Thing

TRAVELLERS = (
    Thing("the rocket", "traveller"),
    Thing("the hot-air balloon", "traveller"),
    Thing("the owl", "traveller"),
    Thing("the flying saucer", "traveller"),
    Thing("the airplane", "traveller"),
)
FIXTURES = (Thing("the moon", "fixture"), Thing("the tent", "fixture"), Thing("the pine tree", "fixture"))
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
STREAK = 0.8


@dataclasses.dataclass(frozen=True)
class Look:
    """Colours of the night."""

    sky: tuple[str, str]
    far: str
    near: str
    lake: tuple[str, str]
    shore: str
    moon: tuple[float, float]


INDIGO = Look(("#141a44", "#5a5fa8"), "#3a4286", "#2a3170", ("#4f5aa6", "#1d2458"), "#171d48", (64, 44))
VIOLET = Look(("#22143f", "#a0608f"), "#6a4178", "#4a2d63", ("#8d5a90", "#35204f"), "#24153c", (318, 40))


def rocket(pen: Pen, t: float) -> None:
    """A rocket that points right."""
    flame = 6 * wave(t, 0.4)
    pen.fill(blob((-22, -5), (-42 - flame, 0), (-22, 5)), ("#ffd46b", "#f7913d"))
    pen.fill(blob((-22, -3), (-32 - flame * 0.5, 0), (-22, 3)), "#fff3c4")
    pen.fill(merge(polygon((-10, -7), (-24, -17), (-22, -5)), polygon((-10, 7), (-24, 17), (-22, 5))), "#e2694d")
    body = blob((30, 0), (18, -8), (0, -10), (-22, -7), (-22, 7), (0, 10), (18, 8))
    pen.fill(body, ("#ffffff", "#ccd5ea"))
    pen.fill(rect(17, -12, 20, 24), "#e2694d", within=body)
    pen.fill(circle(5, 0, 5.4), "#35558f")
    pen.fill(circle(5, 0, 3.6), "#9fd8f5")


def balloon(pen: Pen) -> None:
    """A hot-air balloon with stripes."""
    pen.fill(merge(line([(-7, 22), (-5, 32)], 1), line([(7, 22), (5, 32)], 1)), "#f0dcc0")
    pen.fill(rect(-7, 31, 14, 10, 2), ("#d79a5b", "#a86f3f"))
    skin = blob((0, -28), (17, -21), (24, -4), (16, 12), (7, 24), (-7, 24), (-16, 12), (-24, -4), (-17, -21))
    pen.fill(skin, ("#ffd66b", "#f5a83a"))
    for x, half in ((-15, 4.5), (0, 5.0), (15, 4.5)):
        pen.fill(
            blob((x * 0.2, -29), (x - half, -4), (x * 0.35 - 1.5, 25), (x * 0.35 + 1.5, 25), (x + half, -4)),
            "#e2694d",
            within=skin,
        )


def owl(pen: Pen, t: float) -> None:
    """An owl in flight, its face towards us."""
    lift = 10 * wave(t, 1.0)
    for side in (-1, 1):
        wing = pen.at(0, 0, stretch=side)
        wing.fill(
            blob((2, -8), (20, -9 - lift * 0.7), (38, -6 - lift * 1.3), (34, 2 - lift), (22, 6 - lift * 0.5), (4, 8)),
            ("#b98e68", "#8d6548"),
        )
    pen.fill(blob((-5, 15), (0, 25), (6, 15)), "#8d6548")
    pen.fill(merge(polygon((-13, -10), (-13, -24), (-3, -15)), polygon((13, -10), (13, -24), (3, -15))), "#8d6548")
    pen.fill(
        blob((0, -17), (11, -15), (14, -2), (9, 14), (0, 18), (-9, 14), (-14, -2), (-11, -15)), ("#d4a97f", "#a97d58")
    )
    pen.fill(ellipse(0, 6, 8, 9), "#f1dcc0")
    for x in (-5.4, 5.4):
        pen.fill(circle(x, -7, 5.8), "#fff8e8")
        pen.fill(circle(x, -7, 3.0), "#2b2438")
        pen.fill(circle(x + 1, -8, 1), "#ffffff")
    pen.fill(polygon((-2.4, -4), (2.4, -4), (0, 1)), "#f7a23b")


def saucer(pen: Pen, t: float) -> None:
    """A flying saucer with blinking lamps."""
    pen.fill(polygon((-14, 6), (14, 6), (30, 44), (-30, 44)), "#c9fff2", alpha=0.18)
    pen.fill(arc(0, -4, 15, 16, 0.5, 1.0), ("#dffaff", "#8fd3e8"))
    pen.fill(ellipse(0, 0, 33, 9.5), ("#dfe3f5", "#8f98c4"))
    pen.fill(ellipse(0, 4, 18, 4.5), "#6f78a8")
    for k in range(5):
        on = (round(t * 3) + k) % 2 == 0
        pen.fill(circle(-22 + 11 * k, 0.5 + 2.2 * (1 - abs(k - 2) / 2), 2.2), "#ffe27a" if on else "#5fd0c0")


def airplane(pen: Pen) -> None:
    """An airliner that flies to the right."""
    pen.fill(polygon((-26, -4), (-36, -20), (-28, -20), (-14, -5)), "#4fa7ad")
    pen.fill(
        blob((38, 1), (30, -6), (10, -8), (-30, -5), (-37, -2), (-20, 5), (14, 7), (32, 5)), ("#ffffff", "#cfd8ec")
    )
    pen.fill(polygon((28, -4.4), (35, -1.6), (26, -1.4)), "#5f8fc0")
    for k in range(7):
        pen.fill(rect(-16 + 6 * k, -4, 3, 3.2, 1), "#5f8fc0")
    pen.fill(polygon((8, 1), (-8, 1), (-26, 18), (-17, 18)), "#8fa3cc")
    pen.fill(polygon((-25, -2), (-33, -2), (-40, 5), (-35, 5)), "#8fa3cc")


def _traveller(pen: Pen, name: str, t: float) -> None:
    pen = pen.named(name)
    if name == "the rocket":
        rocket(pen.at(0, 0, turn=-0.03), t)
    elif name == "the hot-air balloon":
        balloon(pen.at(0, 0, scale=1.05))
    elif name == "the owl":
        owl(pen, t)
    elif name == "the flying saucer":
        saucer(pen.at(0, 0, turn=0.015 * wave(t, 1.7)), t)
    else:
        airplane(pen)


def _backdrop(pen: Pen, look: Look) -> None:
    pen.fill(rect(0, 0, 384, 168), look.sky)
    for i in range(56):
        pen.fill(circle((i * 89 + 11) % 384, (i * 47) % 128, 0.5 + 0.3 * (i % 3)), "#ffffff", alpha=0.75)
    x, y = look.moon
    pen.glow(x, y, 70, 70, "#f6f0da", 0.5)
    moon = pen.named("the moon")
    moon.fill(circle(x, y, 18), ("#fdf9e6", "#ece4c4"))
    for dx, dy, r in ((-6, -5, 3.6), (6, 5, 4.4), (3, -8, 2)):
        moon.fill(circle(x + dx, y + dy, r), "#e0d6b2")
    pen.fill(
        [
            [
                (-4, 172),
                (-4, 138),
                (40, 112),
                (74, 134),
                (124, 98),
                (176, 140),
                (224, 116),
                (262, 138),
                (320, 104),
                (388, 142),
                (388, 172),
            ]
        ],
        look.far,
    )
    pen.fill(
        [[*curve((-4, 156), (60, 142), (140, 158), (230, 144), (310, 156), (390, 146)), (390, 176), (-4, 176)]],
        look.near,
    )
    pen.fill(rect(0, 166, 384, 50), look.lake)
    for k in range(6):
        pen.fill(rect(x - 17 + 3 * (k % 3), 170 + 6 * k, 34 - 4 * k, 1.8, 0.9), "#fdf3d6", alpha=0.5)
    for i in range(12):
        pen.fill(rect((i * 67) % 384, 172 + (i * 17) % 40, 12 + 7 * (i % 3), 1.4, 0.7), "#ffffff", alpha=0.16)
    pen.fill(
        [[*curve((-4, 206), (60, 196), (130, 202), (230, 208), (310, 198), (390, 194)), (390, 220), (-4, 220)]],
        look.shore,
    )
    tent = pen.named("the tent").at(112, 204)
    tent.fill(polygon((-34, 0), (0, -38), (34, 0)), ("#f7b25f", "#dd7a3c"))
    tent.fill(polygon((-9, 0), (0, -26), (9, 0)), "#fff0b8")
    pen.glow(112, 198, 52, 26, "#ffd98a", 0.5)
    pine = pen.named("the pine tree").at(268, 208)
    pine.fill(rect(-3.5, -18, 7, 18), "#6b4a50")
    for k in range(3):
        base, half = -12 - 18 * k, 24 - 5 * k
        pine.fill(polygon((-half, base), (0, base - 34), (half, base)), ("#5aa394", "#347a74"))


def sky(
    video_id: str,
    look: Look,
    *,
    crossings: list[tuple[str, float, int, float]],
    streaks: list[tuple[float, float, float]],
) -> Scene:
    """``crossings``: who, when, direction and height; ``streaks``: when and where a shooting star lights up."""
    falling = [(f"the {ORDINALS[k]} shooting star", *streak) for k, streak in enumerate(streaks)]

    def draw(pen: Pen, t: float) -> None:
        for name, start, x, y in falling:
            u = (t - start) / STREAK
            if 0 <= u < 1:
                hx, hy = x - 70 * u, y + 34 * u
                pen.fill(line([(hx, hy), (hx + 46, hy - 22.5)], 7, end=1), "#ffffff", alpha=0.25)
                own = pen.named(name)
                own.fill(line([(hx, hy), (hx + 40, hy - 19.5)], 4.4, end=0.8), "#fff3c4")
                own.fill(circle(hx, hy, 3.4), "#ffffff")
                pen.glow(hx, hy, 15, 15, "#fff3c4", 0.7)
        for name, start, direction, y in crossings:
            (along,) = path(t, [(start, -50), (start + 4.2, 434)])
            if -50 < along < 434:
                x = along if direction > 0 else 384 - along
                rise = -0.06 * along if name == "the rocket" else 3 * wave(t, 2.4)
                _traveller(pen.at(x, y + rise, stretch=direction), name, t)

    def states(t: float) -> set[tuple[str, str]]:
        return {(name, "cross the sky") for name, start, _, _ in falling if start <= t < start + STREAK}

    words = {"kind": "traveller", "choices": [thing.name for thing in TRAVELLERS]}
    return Scene(
        video_id,
        60,
        (*TRAVELLERS, *(Thing(name, "shooting star") for name, *_ in falling), *FIXTURES),
        lambda pen: _backdrop(pen, look),
        draw,
        states,
        (
            Ask("count_events", {"kind": "shooting star", "verb": "cross the sky"}),
            Ask("next_seen", {**words, "who": "What", "after": "the rocket"}),
            Ask("first_seen", {**words, "type": "what", "asks": "What crosses the sky first?"}),
        ),
    )


SCENES = (
    sky(
        "sky_indigo",
        INDIGO,
        crossings=[
            ("the owl", 0.2, 1, 112),
            ("the rocket", 2.0, -1, 64),
            ("the hot-air balloon", 4.2, 1, 62),
            ("the airplane", 5.7, -1, 112),
        ],
        streaks=[(0.9, 300, 26), (5.1, 356, 44), (6.7, 190, 22), (8.4, 270, 40)],
    ),
    sky(
        "sky_violet",
        VIOLET,
        crossings=[
            ("the flying saucer", 0.1, -1, 62),
            ("the owl", 1.7, 1, 118),
            ("the rocket", 3.5, 1, 72),
            ("the airplane", 5.6, -1, 100),
        ],
        streaks=[(1.2, 130, 24), (6.9, 230, 30)],
    ),
)
