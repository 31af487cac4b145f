"""The scenes of the sample with other casts, times and ways: the same world, other clips.

One function per scene draws its parameters. Not every draw makes a clear clip; :mod:`questions` refuses those that are
not, and the caller draws again. The parameters of the sample itself are continuous numbers too, so none comes up again.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

from options import shuffled
from scenes import Scene, cups, gallery, harbour, house, orchard, reef, room, sky, street

__all__ = ["FAMILIES", "draw_scene"]

END = 9.4  # seconds; the clips last 9 or 10


def draw_scene(family: str, video_id: str, rng: random.Random) -> Scene:
    """One clip of a family, drawn by ``rng.random`` alone.

    Raises:
        KeyError: There is no such family.
    """
    return FAMILIES[family](video_id, rng)


def _between(rng: random.Random, low: float, high: float) -> float:
    return round(low + (high - low) * rng.random(), 2)


def _one(rng: random.Random, items: Sequence[Any]) -> Any:
    return items[int(rng.random() * len(items))]


def _count(rng: random.Random, low: int, high: int) -> int:
    return low + int(rng.random() * (high - low + 1))


def _moments(rng: random.Random, count: int, first: float, last: float, gap: float) -> list[float]:
    """Sorted moments at least ``gap`` apart; fewer than ``count`` if there is no room."""
    count = max(1, min(count, 1 + int((last - first) / gap)))
    spare = last - first - gap * (count - 1)
    return [round(first + cut + gap * k, 2) for k, cut in enumerate(sorted(rng.random() * spare for _ in range(count)))]


def _names(things: Sequence[Any], rng: random.Random) -> list[str]:
    return shuffled([thing.name for thing in things], rng)


def _side(rng: random.Random) -> int:
    return 1 if rng.random() < 0.5 else -1


def _street(video_id: str, rng: random.Random) -> Scene:
    names = _names(street.VEHICLES, rng)[: _count(rng, 3, 5)]
    starts = _moments(rng, len(names), 0.1, 6.0, 1.0)
    traffic = [(name, start, _side(rng)) for name, start in zip(names, starts, strict=False)]
    return street.street(video_id, _one(rng, (street.MORNING, street.EVENING)), traffic)


def _reef(video_id: str, rng: random.Random) -> Scene:
    names = _names(reef.FISH, rng)
    # The turtle takes 3.1 s and a visit 2.3 s: it dives before both visits, between them, or after them.
    when = _count(rng, 0, 2)
    first = _between(rng, *((3.6, 4.3), (0.1, 0.6), (0.1, 0.5))[when])
    second = _between(rng, *((first + 3.0, 7.5), (6.8, 7.5), (3.2, 3.9))[when])
    dive = _between(rng, *((0.1, 0.3), (first + 2.5, second - 3.4), (second + 2.6, 6.7))[when])
    visits = [(start, _side(rng), _between(rng, 60, 110)) for start in (first, second)]
    crossings = [
        (name, _between(rng, 0.3, 5.4), _side(rng), _between(rng, 44, 150)) for name in names[1 : 1 + _count(rng, 2, 3)]
    ]
    return reef.reef(
        video_id, _one(rng, (reef.LAGOON, reef.DEEP)), returns=(names[0], visits), crossings=crossings, dive=dive
    )  # fmt: skip


def _orchard(video_id: str, rng: random.Random) -> Scene:
    names = shuffled(list(orchard.APPLES), rng)[: _count(rng, 1, 5)]
    falls = list(zip(names, _moments(rng, len(names), 0.2, 8.6, 1.65), strict=False))
    # A fall takes 1.1 s. The bird comes where nothing falls half a second before and after, if there is such a place.
    edges = [-1.5, *(start for _, start in falls), 9.0]
    gaps = [(a + 1.7, b - 0.8) for a, b in itertools.pairwise(edges) if a + 1.7 < min(b - 0.8, 6.6)]
    low, high = _one(rng, gaps or [(0.3, 6.5)])
    flight = _between(rng, max(0.1, low), min(high, 6.6))
    return orchard.orchard(video_id, _one(rng, (orchard.SUMMER, orchard.AUTUMN)), falls, flight)


def _harbour(video_id: str, rng: random.Random) -> Scene:
    names = _names(harbour.BOATS, rng)
    near = [
        (names[1], _side(rng), _between(rng, 130, 160), _between(rng, 10, 18), _between(rng, 162, 168)),
        (names[2], _side(rng), _between(rng, -190, -100), _between(rng, 54, 68), _between(rng, 186, 194)),
    ]
    flashes = _moments(rng, _count(rng, 1, 5), 0.4, 8.9, 1.02)
    return harbour.harbour(
        video_id, _one(rng, (harbour.SUNSET, harbour.NIGHT)),
        far=(names[0], _side(rng), _between(rng, 0, 14), _between(rng, 48, 58)),
        near=near[: _count(rng, 1, 2)], flashes=flashes,
    )  # fmt: skip


def _house(video_id: str, rng: random.Random) -> Scene:
    names = shuffled(list(house.WINDOWS), rng)[: _count(rng, 2, 5)]
    starts = _moments(rng, len(names), 0.3, 7.4, 1.55)
    lights = [
        (name, start, round(start + _between(rng, 0.6, 0.95), 2)) for name, start in zip(names, starts, strict=False)
    ]
    return house.house(video_id, _one(rng, (house.BLUE, house.ROSE)), lights)


def _gallery(video_id: str, rng: random.Random) -> Scene:
    covers, balls = _names(gallery.COVERS, rng), _names(gallery.BALLS, rng)
    before = _count(rng, 0, 2)
    furniture = [
        (name, _between(rng, x - 6, x + 6), place == before)
        for place, (name, x) in enumerate(zip(covers, (84, 194, 306), strict=False))
    ]
    start = _between(rng, 0.1, 0.8)
    stop = furniture[before][1]
    reach = round(start + (stop + 20) / 95, 2)
    rollers = [(ball, _between(rng, 0.2, 6.0), _side(rng)) for ball in balls[1 : 1 + _count(rng, 1, 2)]]
    return gallery.gallery(
        video_id, _one(rng, (gallery.SAGE, gallery.LILAC)), furniture=furniture,
        hider=(balls[0], start, reach, round(reach + _between(rng, 1.6, 3.2), 2)), rollers=rollers,
        flight=_between(rng, 0.1, 7.3),
    )  # fmt: skip


def _room(video_id: str, rng: random.Random) -> Scene:
    starts = _moments(rng, _count(rng, 1, 3), 0.4, 7.6, 2.9)
    openings = [(start, round(start + _between(rng, 1.2, 2.3), 2)) for start in starts]
    names = _names(room.VISITORS, rng)
    opening = _one(rng, openings)
    around = [(names[1], _between(rng, 70, 130), _between(rng, 188, 200)), (names[2], _between(rng, 140, 180), 200.0)]
    light = _between(rng, 0.2, 8.2)
    return room.room(
        video_id, _one(rng, (room.DAY, room.EVENING)), openings=openings,
        visitor=(names[0], round(opening[0] + 0.7, 2), _between(rng, 205, 216)), around=around[: _count(rng, 1, 2)],
        light=(light, round(light + _between(rng, 0.7, 1.5), 2)),
    )  # fmt: skip


def _cups(video_id: str, rng: random.Random) -> Scene:
    row = _names(cups.ITEMS, rng)
    pairs = [_one(rng, ((0, 1), (1, 2), (0, 2))) for _ in range(3)]
    swaps = [(round(2.9 + 1.35 * k, 2), *pair) for k, pair in enumerate(pairs)]
    return cups.cups(
        video_id, _one(rng, (cups.PEACH, cups.MINT)), hidden=_one(rng, row), under=_count(rng, 0, 2), swaps=swaps,
        row=row,
    )  # fmt: skip


def _sky(video_id: str, rng: random.Random) -> Scene:
    names = _names(sky.TRAVELLERS, rng)[: _count(rng, 3, 4)]
    if "the rocket" not in names:
        names[0] = "the rocket"
    names = shuffled(names, rng)
    starts = _moments(rng, len(names), 0.1, 5.8, 1.2)
    crossings = [(name, start, _side(rng), _between(rng, 60, 118)) for name, start in zip(names, starts, strict=False)]
    streaks = [
        (start, _between(rng, 120, 360), _between(rng, 20, 46))
        for start in _moments(rng, _count(rng, 1, 5), 0.3, 8.8, 1.4)
    ]
    return sky.sky(video_id, _one(rng, (sky.INDIGO, sky.VIOLET)), crossings=crossings, streaks=streaks)


FAMILIES: dict[str, Callable[[str, random.Random], Scene]] = {
    "street": _street,
    "reef": _reef,
    "orchard": _orchard,
    "harbour": _harbour,
    "room": _room,
    "cups": _cups,
    "house": _house,
    "gallery": _gallery,
    "sky": _sky,
}
