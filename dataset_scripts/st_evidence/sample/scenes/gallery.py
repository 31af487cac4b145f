"""A hall in which look-alike balls roll past; one of them stays out of sight behind a piece of furniture."""

from __future__ import annotations

import dataclasses

from geometry import arc, circle, curve, ellipse, line, merge, polygon, rect, star
from motion import path
from render import Pen

from scenes.base import Ask, Scene, Thing, nothing

BALLS = (
    Thing("the plain ball", "ball", "orange"),
    Thing("the striped ball", "ball", "orange"),
    Thing("the dotted ball", "ball", "orange"),
    Thing("the starred ball", "ball", "orange"),
)
COVERS = (
    Thing("the crate", "occluder"),
    Thing("the folding screen", "occluder"),
    Thing("the armchair", "occluder"),
    Thing("the drum", "occluder"),
)
PLANE = Thing("the paper plane", "plane")
RADIUS = 15.0


@dataclasses.dataclass(frozen=True)
class Look:
    """Wall and floor."""

    wall: tuple[str, str]
    panel: str
    floor: tuple[str, str]
    trim: str
    arch: tuple[str, str]
    chair: tuple[str, str]
    screen: tuple[str, str]


SAGE = Look(
    ("#dfe9dd", "#c3d6c8"),
    "#b4cbbd",
    ("#e9dcc5", "#cdb996"),
    "#fbfaf4",
    ("#bfe3f2", "#e9f5f2"),
    ("#8a6fb5", "#6a5194"),
    ("#5b8fb0", "#3f6f90"),
)
LILAC = Look(
    ("#ece3f3", "#d3c5e2"),
    "#c5b5d8",
    ("#d9c3b4", "#b89a88"),
    "#fdfafd",
    ("#ffd9c2", "#fff0e0"),
    ("#4f9aa3", "#34747f"),
    ("#7486c4", "#5262a0"),
)


def rolling_ball(pen: Pen, name: str, roll: float) -> None:
    """An orange ball, its middle on the origin; ``roll`` in turns. The light does not turn with it."""
    pen = pen.named(name)
    disc = circle(0, 0, RADIUS)
    pen.fill(disc, ("#ffa45c", "#e86f2c"))
    marks = pen.at(0, 0, turn=roll)
    if name == "the striped ball":
        for y in (-8.5, 0, 8.5):
            marks.fill(rect(-16, y - 2.2, 32, 4.4), "#fff6e8", within=disc)
    elif name == "the dotted ball":
        for x, y in ((0, -9), (8.6, -2.8), (5.3, 7.3), (-5.3, 7.3), (-8.6, -2.8)):
            marks.fill(circle(x, y, 3), "#fff6e8")
    elif name == "the starred ball":
        marks.fill(star(0, 0, 11.5, inner=0.45), "#fff6e8")
    pen.fill(ellipse(-5, -7, 4.5, 3), "#ffffff", alpha=0.45)


def _backdrop(pen: Pen, look: Look) -> None:
    pen.fill(rect(0, 0, 384, 142), look.wall)
    for x in (46, 192, 338):
        pen.fill([[(x - 38, 118), *arc(x, 50, 38, 38, 0.5, 1.0)[0], (x + 38, 118)]], look.trim)
        pen.fill([[(x - 33, 114), *arc(x, 50, 33, 33, 0.5, 1.0)[0], (x + 33, 114)]], look.arch)
        pen.fill(
            [[*curve((x - 33, 100), (x - 12, 88), (x + 10, 98), (x + 33, 86)), (x + 33, 114), (x - 33, 114)]],
            look.panel,
        )
        pen.fill(merge(rect(x - 1, 16, 2, 98), rect(x - 33, 60, 66, 2)), look.trim)
    for x in (119, 265):
        pen.fill(rect(x - 13, 0, 26, 142), look.trim)
        pen.fill(merge(rect(x - 8, 8, 2, 126), rect(x - 1, 8, 2, 126), rect(x + 6, 8, 2, 126)), look.panel, alpha=0.6)
        pen.fill(merge(rect(x - 17, 0, 34, 7), rect(x - 17, 134, 34, 8)), look.trim)
    pen.fill(rect(0, 140, 384, 76), look.floor)
    pen.fill(rect(0, 136, 384, 5), look.trim)
    for k in range(9):
        x = 192 + (k - 4) * 62
        pen.fill(
            polygon((x, 141), (x + 1.5, 141), (x + (x - 192) * 0.7 + 2, 216), (x + (x - 192) * 0.7, 216)),
            "#6b4a3a",
            alpha=0.12,
        )
    for y in (152, 168, 190):
        pen.fill(rect(0, y, 384, 1.2), "#6b4a3a", alpha=0.12)


def cover(pen: Pen, look: Look, name: str) -> None:
    """A piece of furniture that a ball can be behind, standing on the origin."""
    pen.glow(0, 0, 54, 8, "#3a2418", 0.45)
    pen = pen.named(name)
    if name == "the crate":
        pen.fill(rect(-36, -58, 72, 58, 2), ("#c9935a", "#a87242"))
        for k in range(3):
            pen.fill(rect(-31, -53 + 17 * k, 62, 14), ("#e3b47a", "#cf9a60"))
        pen.fill(polygon((-31, -53), (-22, -53), (31, -5), (22, -5)), "#a87242")
        pen.fill(
            merge(rect(-36, -58, 72, 5), rect(-36, -5, 72, 5), rect(-36, -58, 6, 58), rect(30, -58, 6, 58)), "#b57f4c"
        )
    elif name == "the folding screen":
        for k in range(3):
            x = -39 + 26 * k
            skew = 5 if k % 2 else -5
            pen.fill(polygon((x, -72 + skew), (x + 26, -72 - skew), (x + 26, 0), (x, 0)), look.screen[k % 2])
            pen.fill(
                polygon((x + 4, -66 + skew * 0.7), (x + 22, -66 - skew * 0.7), (x + 22, -8), (x + 4, -8)), "#f4efe2"
            )
            pen.fill(ellipse(x + 13, -37, 6, 11), look.screen[(k + 1) % 2])
    elif name == "the armchair":
        pen.fill(merge(rect(-34, -6, 6, 6), rect(28, -6, 6, 6)), "#6b4a36")
        pen.fill(rect(-34, -66, 68, 60, (18, 18, 4, 4)), look.chair[1])
        pen.fill(rect(-27, -60, 54, 42, (14, 14, 4, 4)), look.chair)
        pen.fill(rect(-30, -29, 60, 23, 5), look.chair[0])
        pen.fill(merge(rect(-43, -40, 18, 36, (9, 9, 3, 3)), rect(25, -40, 18, 36, (9, 9, 3, 3))), look.chair)
    else:
        pen.fill(rect(-36, -52, 72, 50, (4, 4, 10, 10)), ("#e5788f", "#bf4f6b"))
        for k in range(5):
            x = -32 + 16 * k
            pen.fill(line([(x - 3, -46), (x + 5, -8)], 2), "#fff1dc")
            pen.fill(line([(x + 5, -46), (x - 3, -8)], 2), "#fff1dc")
        pen.fill(merge(rect(-38, -54, 76, 8, 3), rect(-38, -9, 76, 8, 3)), ("#ffd98a", "#e9b65a"))


def paper_plane(pen: Pen) -> None:
    """A folded paper plane that flies to the left."""
    pen = pen.named("the paper plane")
    pen.fill(polygon((-27, 3), (22, -13), (4, 2)), ("#ffe27a", "#fbc94a"))
    pen.fill(polygon((-27, 3), (4, 2), (26, 8)), "#f0ae38")
    pen.fill(polygon((-27, 3), (4, 2), (3, 13)), "#c9822a")


def gallery(
    video_id: str,
    look: Look,
    *,
    furniture: list[tuple[str, float, bool]],
    hider: tuple[str, float, float, float],
    rollers: list[tuple[str, float, int]],
    flight: float,
) -> Scene:
    """A hall.

    ``furniture``: piece, place, and whether it stands in front of the ball's way; ``hider``: a ball, when it enters,
    when it reaches the piece in front, and when it rolls on; ``rollers``: balls nearer to us, when they enter, and
    in which direction; ``flight``: when the paper plane enters.
    """
    (stop,) = [x for _, x, before in furniture if before]

    def draw(pen: Pen, t: float) -> None:
        for name, x, before in furniture:
            if not before:
                cover(pen.at(x, 160, scale=0.94), look, name)
        name, start, reach, leave = hider
        (x,) = path(t, [(start, -20), (reach, stop), (leave, stop), (leave + (404 - stop) / 105, 404)])
        if -20 < x < 404:
            pen.glow(x, 178, 18, 4, "#3a2418", 0.45)
            rolling_ball(pen.at(x, 163), name, x / (6.283 * RADIUS))
        for piece, x, before in furniture:
            if before:
                cover(pen.at(x, 190, scale=1.1), look, piece)
        for name, start, direction in rollers:
            (along,) = path(t, [(start, -22), (start + 3.9, 406)])
            if -22 < along < 406:
                x = along if direction > 0 else 384 - along
                pen.glow(x, 211, 20, 4, "#3a2418", 0.45)
                rolling_ball(pen.at(x, 194, scale=1.08), name, x / (6.283 * RADIUS * 1.08))
        x, y, turn = path(
            t,
            [
                (flight, 330, -16, -0.07),
                (flight + 1.0, 214, 40, -0.05),
                (flight + 1.7, 120, 62, 0.0),
                (flight + 2.6, -30, 44, 0.05),
            ],
        )
        if flight < t < flight + 2.6:
            paper_plane(pen.at(x, y, turn=turn, scale=1.1))

    return Scene(
        video_id,
        60,
        (*BALLS, *COVERS, PLANE),
        lambda pen: _backdrop(pen, look),
        draw,
        nothing,
        (
            Ask("which_hides", {"kind": "ball", "choices": [thing.name for thing in BALLS]}),
            Ask("hidden_behind", {"kind": "ball", "noun": "a ball", "choices": [thing.name for thing in COVERS]}),
            Ask(
                "when_seen",
                {
                    "subject": "the paper plane",
                    "asks": "When does the paper plane fly past?",
                    "reference": hider[0],
                    "by": "hiding",
                },
            ),
        ),
    )


SCENES = (
    gallery(
        "gallery_sage",
        SAGE,
        furniture=[("the crate", 86, False), ("the folding screen", 198, True), ("the armchair", 312, False)],
        hider=("the striped ball", 0.3, 2.6, 5.4),
        rollers=[("the plain ball", 1.4, -1), ("the dotted ball", 5.6, 1)],
        flight=7.2,
    ),
    gallery(
        "gallery_lilac",
        LILAC,
        furniture=[("the armchair", 80, False), ("the drum", 300, False), ("the crate", 190, True)],
        hider=("the plain ball", 0.4, 2.6, 5.5),
        rollers=[("the starred ball", 0.5, -1), ("the striped ball", 5.4, 1)],
        flight=2.7,
    ),
)
