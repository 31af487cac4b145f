"""What a scene is: a cast, a clock, and functions that draw it. It says nothing about questions' answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from render import Frame, Pen

FPS = 6.0


@dataclasses.dataclass(frozen=True)
class Thing:
    """An object that can be named, pointed at, and asked for."""

    name: str
    kind: str
    colour: str = ""


@dataclasses.dataclass(frozen=True)
class Ask:
    """A question to put to a scene: a family of :mod:`questions` and the wording that it needs."""

    family: str
    words: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Scene:
    """One clip.

    Attributes:
        video_id: Its name.
        frames: Its length; frame ``i`` shows the moment ``i / FPS`` and lasts until the next.
        things: Every nameable object, in a fixed order.
        backdrop: Draws what never moves and lies behind everything.
        draw: Draws the rest at a moment, from back to front.
        states: What is going on at a moment: pairs of a thing's name and a verb.
        asks: The questions.
    """

    video_id: str
    frames: int
    things: tuple[Thing, ...]
    backdrop: Callable[[Pen], None]
    draw: Callable[[Pen, float], None]
    states: Callable[[float], set[tuple[str, str]]]
    asks: tuple[Ask, ...]

    @property
    def names(self) -> list[str]:
        """The names of all things."""
        return [thing.name for thing in self.things]

    def render(self, index: int, base: Frame | None = None, *, picture: bool = True) -> Frame:
        """Frame ``index``; ``base`` is what :meth:`render_backdrop` gave."""
        base = base or self.render_backdrop(picture=picture)
        frame = Frame(self.names, picture=picture, base=base)
        self.draw(Pen(frame), index / FPS)
        return frame

    def render_backdrop(self, *, picture: bool = True) -> Frame:
        """The part that never moves, drawn once."""
        frame = Frame(self.names, picture=picture)
        self.backdrop(Pen(frame))
        return frame


def nothing(_: float) -> set[tuple[str, str]]:
    """The states of a scene in which only appearance matters."""
    return set()
