"""Three look-alike cups on a table: something slides under one of them, and they change places."""

from __future__ import annotations

import dataclasses

from geometry import arc, blob, circle, ellipse, line, polygon, rect, star
from motion import path, ramp, smooth
from render import Pen

from scenes.base import Ask, Scene, Thing

PLACES = ("the left cup", "the middle cup", "the right cup")
CUPS = tuple(Thing(f"the cup that starts {side}", "cup") for side in ("on the left", "in the middle", "on the right"))
ITEMS = (
    Thing("the ball", "item"),
    Thing("the star", "item"),
    Thing("the block", "item"),
    Thing("the coin", "item"),
)
SPOTS = (98.0, 192.0, 286.0)
BASE = 158.0
LIFT = (0.4, 0.9)
SLIDE = (0.9, 1.9)
LOWER = (1.9, 2.4)
SWAP = 1.2


@dataclasses.dataclass(frozen=True)
class Look:
    """Wall, table and cups."""

    wall: tuple[str, str]
    table: tuple[str, str]
    edge: str
    cup: tuple[str, str]
    band: str


PEACH = Look(("#ffe9d6", "#f9cfae"), ("#c98d62", "#b0744b"), "#8d5838", ("#4fa7ad", "#2c7480"), "#e8f6f4")
MINT = Look(("#dcefe9", "#b5d9d3"), ("#9b7fa8", "#7f628f"), "#5f4672", ("#f5a25d", "#d97736"), "#fff0dd")


def cup(pen: Pen, look: Look) -> None:
    """A cup upside down, its rim on the origin."""
    side = [(-27, -3), (-20, -66), (20, -66), (27, -3)]
    body = [[side[0], side[1], *arc(0, -66, 20, 4.5, 0.5, 1.0)[0], side[2], side[3], *arc(0, -3, 27, 7, 0.0, 0.5)[0]]]
    pen.fill(body, look.cup)
    pen.fill(polygon((-24.5, -24), (-22.3, -46), (22.3, -46), (24.5, -24)), look.band, within=body)
    pen.fill(polygon((-17, -70), (-9, -70), (-14, 6), (-23, 6)), "#ffffff", alpha=0.22, within=body)
    pen.fill(polygon((12, -72), (24, -72), (30, 6), (17, 6)), "#1b2038", alpha=0.12, within=body)
    pen.fill([[*arc(0, -3, 27, 7, 0.0, 0.5)[0], *arc(0, -6.5, 26.6, 7, 0.5, 0.0)[0]]], look.cup[1])


def item(pen: Pen, name: str) -> None:
    """One of the small things, standing on the origin."""
    pen.glow(0, 0, 17, 4, "#2a1420", 0.5)
    pen = pen.named(name)
    if name == "the ball":
        disc = circle(0, -11, 11)
        pen.fill(disc, ("#7a8cf0", "#4a57c4"))
        pen.fill(rect(-12, -14, 24, 5), "#ffffff", within=disc)
        pen.fill(circle(-4, -17, 2), "#c3ccff")
    elif name == "the star":
        pen.fill(star(0, -11, 14, inner=0.52), ("#ffe06e", "#f5b02f"))
        pen.fill(star(0, -11, 7, inner=0.52), "#fff2b8")
    elif name == "the block":
        pen.fill(polygon((-11, -17), (-5, -23), (13, -23), (7, -17)), "#f9c2d4")
        pen.fill(polygon((7, -17), (13, -23), (13, -6), (7, 0)), "#c9587f")
        pen.fill(rect(-11, -17, 18, 17), "#ee86a8")
        pen.fill(star(-2, -8.5, 5), "#fff0f5")
    else:
        pen.fill(ellipse(0, -4.5, 13, 6.5), "#8f9bab")
        pen.fill(ellipse(0, -6.5, 13, 6.5), ("#f3f6fa", "#c3ccd8"))
        pen.fill(ellipse(0, -6.5, 9, 4.2), "#aab5c4")
        pen.fill(ellipse(0, -6.9, 8.4, 3.7), "#dfe5ee")


def _backdrop(pen: Pen, look: Look) -> None:
    pen.fill(rect(0, 0, 384, 122), look.wall)
    pen.fill(circle(192, 150, 128), "#ffffff", alpha=0.22)
    pen.fill(circle(192, 150, 96), "#ffffff", alpha=0.18)
    for x in (44, 340):
        pen.glow(x, 52, 66, 52, "#fffbe6", 0.6)
        pen.fill(line([(x, 0), (x, 26)], 1.4), look.edge)
        pen.fill(blob((x - 17, 42), (x - 9, 27), (x + 9, 27), (x + 17, 42), (x, 45)), look.edge)
        pen.fill(ellipse(x, 43, 12, 3), "#fff6d6")
    pen.fill(polygon((0, 122), (384, 122), (384, 206), (0, 206)), look.table)
    for y, alpha in ((130, 0.10), (141, 0.10), (156, 0.10), (175, 0.10)):
        pen.fill(rect(0, y, 384, 1.3), "#2a1420", alpha=alpha)
    pen.fill(rect(0, 206, 384, 10), look.edge)
    pen.fill(rect(0, 204.6, 384, 1.6), "#ffffff", alpha=0.35)


def cups(
    video_id: str, look: Look, *, hidden: str, under: int, swaps: list[tuple[float, int, int]], row: list[str]
) -> Scene:
    """``swaps``: moment and the two places that change; ``row``: the things in front, from left to right."""
    front = {name: 66 + 84.0 * k for k, name in enumerate(row)}

    def placed(t: float) -> list[tuple[float, float]]:
        """Where each cup stands."""
        order = [0, 1, 2]  # order[place] is the cup there
        where = [(x, BASE) for x in SPOTS]
        for start, a, b in swaps:
            first, second = order[a], order[b]
            u = smooth((t - start) / SWAP)
            if t >= start:
                dx = SPOTS[b] - SPOTS[a]
                bow = 4 * u * (1 - u) * (0.6 + 0.4 * (b - a))  # wider where they pass the cup between them
                where[first] = (SPOTS[a] + dx * u, BASE + 18 * bow)
                where[second] = (SPOTS[b] - dx * u, BASE - 16 * bow)
            if t >= start + SWAP:
                order[a], order[b] = second, first
        return where

    def draw(pen: Pen, t: float) -> None:
        where = placed(t)
        raised = 50 * (ramp(t, *LIFT) - ramp(t, *LOWER))
        x, y = where[under]
        if t < SLIDE[1]:
            x, y = path(t, [(SLIDE[0], front[hidden], 196), (SLIDE[1], SPOTS[under], BASE - 1)], ease=True)
        for name in row:
            if name != hidden:
                item(pen.at(front[name], 196), name)
        for index in sorted(range(3), key=lambda k: where[k][1]):
            cx, cy = where[index]
            lift = raised if index == under else 0.0
            pen.glow(cx + 4, cy + 1, 38 - lift * 0.2, 9, "#2a1420", 0.5 - lift * 0.005)
            if index == under and (
                t >= SLIDE[1] or y <= BASE + 2
            ):  # inside the cup; before that it lies in front of all three
                item(pen.at(x, y), hidden)
            cup(pen.named(CUPS[index].name).at(cx, cy - lift, scale=1 + (cy - BASE) * 0.004), look)
        if t < SLIDE[1] and y > BASE + 2:
            item(pen.at(x, y), hidden)

    def states(t: float) -> set[tuple[str, str]]:
        out = {(hidden, "hidden under a cup")} if SLIDE[0] <= t < LOWER[1] else set()
        where, later = placed(t), placed(t + 0.02)
        for index in range(3):
            moves = where[index] != later[index] or (index == under and LIFT[0] <= t < LOWER[1])
            if moves:
                out.add((CUPS[index].name, "move"))
        return out

    return Scene(
        video_id,
        54,
        (*CUPS, *ITEMS),
        lambda pen: _backdrop(pen, look),
        draw,
        states,
        (
            Ask("who_does", {"kind": "item", "verb": "hidden under a cup", "verbs": "is hidden under a cup"}),
            Ask("covers_at_end", {"kind": "cup", "covered": "item", "places": PLACES}),
        ),
    )


SCENES = (
    cups(
        "cups_peach",
        PEACH,
        hidden="the star",
        under=1,
        swaps=[(2.9, 0, 1), (4.2, 1, 2), (5.6, 0, 2)],
        row=["the ball", "the coin", "the star", "the block"],
    ),
    cups(
        "cups_mint",
        MINT,
        hidden="the ball",
        under=0,
        swaps=[(2.9, 1, 2), (4.2, 0, 1), (5.6, 0, 2)],
        row=["the block", "the ball", "the coin", "the star"],
    ),
)
