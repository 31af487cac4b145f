"""Which frames of a clip to show a model: policies from a clip to times.

A policy returns times at which frames really appear (members of ``info.timestamps``), sorted and without
repeats. A clip with fewer frames than asked for gives all of them. A cap (``max_frames``) never cuts the end
of a clip: a policy that would exceed it spreads ``max_frames`` evenly over the whole clip instead.
"""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import math
import os
from typing import Any, ClassVar

import numpy as np

from evqa.video.info import VideoInfo

__all__ = ["EveryN", "Fps", "Policy", "RandomN", "Uniform", "parse_policy"]


class Policy(abc.ABC):
    """Base of the policies; each is a frozen dataclass whose text form :func:`parse_policy` reads back."""

    name: ClassVar[str]

    @abc.abstractmethod
    def positions(self, info: VideoInfo) -> np.ndarray:
        """The numbers of the chosen frames: int64, sorted, no repeats, at least one."""

    def times(self, info: VideoInfo) -> np.ndarray:
        """The chosen frames' timestamps: float64 seconds, sorted, no repeats, at least one."""
        return info.timestamps[self.positions(info)]

    def describe(self) -> dict[str, Any]:
        """Name and settings, JSON-ready, for a run's manifest."""
        return {"policy": self.name, **dataclasses.asdict(self)}

    def __str__(self) -> str:
        """The form that :func:`parse_policy` reads."""
        first, *others = dataclasses.asdict(self).items()
        text = f"{self.name}:{first[1]!r}"
        for key, value in others:
            if value is not None:
                text += f",{_SHORT.get(key, key)}={value!r}"
        return text


@dataclasses.dataclass(frozen=True)
class Fps(Policy):
    """The frames on screen at 0, 1/``rate``, 2/``rate``, ... seconds.

    Where the clip is slower than ``rate``, each of its frames is taken once.

    Args:
        rate: Frames per second, above 0.
        max_frames: The cap; see the module.
    """

    rate: float
    max_frames: int | None = None
    name: ClassVar[str] = "fps"

    def __post_init__(self) -> None:
        """Check the settings."""
        if isinstance(self.rate, bool) or not (math.isfinite(self.rate) and self.rate > 0):
            raise ValueError(f"rate is a number of frames per second above 0, got {self.rate!r}")
        object.__setattr__(self, "rate", float(self.rate))
        _check_cap(self.max_frames)

    def positions(self, info: VideoInfo) -> np.ndarray:
        """See :meth:`Policy.positions`."""
        # Number the ticks k / rate. A frame is chosen if a tick falls between its start and the next one's.
        ends = np.append(info.starts(), info.duration) - info.timestamps[0]
        first_tick = np.ceil(ends * self.rate - 1e-6)
        first_tick[-1] = max(first_tick[-1], 1)
        return _capped(np.flatnonzero(np.diff(first_tick) > 0), info, self.max_frames)


@dataclasses.dataclass(frozen=True)
class Uniform(Policy):
    """``n`` frames evenly spread in the order of frames, the first and the last included.

    Positions are rounded to the nearest frame. ``n=1`` takes the middle frame.
    """

    n: int
    name: ClassVar[str] = "uniform"

    def __post_init__(self) -> None:
        """Check the settings."""
        _check_count("n", self.n)

    def positions(self, info: VideoInfo) -> np.ndarray:
        """See :meth:`Policy.positions`."""
        return _spread(info.num_frames, self.n)


@dataclasses.dataclass(frozen=True)
class EveryN(Policy):
    """Frames 0, ``n``, 2 ``n``, ...

    Args:
        n: Step in frames, at least 1.
        max_frames: The cap; see the module.
    """

    n: int
    max_frames: int | None = None
    name: ClassVar[str] = "every"

    def __post_init__(self) -> None:
        """Check the settings."""
        _check_count("n", self.n)
        _check_cap(self.max_frames)

    def positions(self, info: VideoInfo) -> np.ndarray:
        """See :meth:`Policy.positions`."""
        return _capped(np.arange(0, info.num_frames, self.n), info, self.max_frames)


@dataclasses.dataclass(frozen=True)
class RandomN(Policy):
    """One random frame out of each of ``n`` near-equal, consecutive parts of the clip.

    The draw depends on ``seed`` and the clip (its file name without the folder, size and number of frames)
    alone: the same on every machine, in every order, and for a file and its bytes.
    """

    n: int
    seed: int = 0
    name: ClassVar[str] = "random"

    def __post_init__(self) -> None:
        """Check the settings."""
        _check_count("n", self.n)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise ValueError(f"seed is an integer, got {self.seed!r}")

    def positions(self, info: VideoInfo) -> np.ndarray:
        """See :meth:`Policy.positions`."""
        parts = min(self.n, info.num_frames)
        edges = np.arange(parts + 1) * info.num_frames // parts
        clip = f"{self.seed}|{os.path.basename(info.path)}|{info.num_frames}|{info.height}x{info.width}"
        digest = hashlib.sha256(clip.encode("utf-8", "surrogatepass")).digest()
        draws = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little"))).random(parts)
        return edges[:-1] + (draws * np.diff(edges)).astype(np.int64)


_SHORT = {"max_frames": "max"}
_POLICIES: dict[str, type[Policy]] = {policy.name: policy for policy in (Fps, Uniform, EveryN, RandomN)}


def parse_policy(text: str | Policy) -> Policy:
    """Read a policy from text.

    Forms: ``fps:RATE[,max=N]``, ``uniform:N``, ``every:N[,max=N]``, ``random:N[,seed=S]``. A policy is
    returned as it is.

    Raises:
        ValueError: Anything else; the message lists the forms.

    >>> parse_policy("fps:1,max=128")
    Fps(rate=1.0, max_frames=128)
    >>> str(parse_policy("random:8"))
    'random:8,seed=0'
    """
    if isinstance(text, Policy):
        return text
    try:
        name, _, rest = text.strip().partition(":")
        policy = _POLICIES[name.strip().lower()]
        first, *others = dataclasses.fields(policy)
        known = {_SHORT.get(field.name, field.name): field.name for field in others}
        values: dict[str, Any] = {}
        for i, part in enumerate(rest.split(",")):
            key, equals, value = (piece.strip() for piece in part.rpartition("="))
            if bool(equals) == (i == 0) or (equals and known[key] in values):
                raise KeyError(part)
            field = known[key] if equals else first.name
            values[field] = float(value) if field == "rate" else int(value)
    except (AttributeError, KeyError, ValueError):
        raise ValueError(
            f"cannot read the sampling policy {text!r}; forms: fps:RATE[,max=N], uniform:N, every:N[,max=N], "
            "random:N[,seed=S]"
        ) from None
    return policy(**values)


def _spread(frames: int, n: int) -> np.ndarray:
    if n >= frames:
        return np.arange(frames)
    if n == 1:
        return np.array([(frames - 1) // 2])
    # A step above 1 between neighbours keeps their roundings apart: no repeats.
    return np.linspace(0, frames - 1, n).round().astype(np.int64)


def _capped(positions: np.ndarray, info: VideoInfo, cap: int | None) -> np.ndarray:
    return positions if cap is None or len(positions) <= cap else _spread(info.num_frames, cap)


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is a whole number of frames, at least 1, got {value!r}")


def _check_cap(value: Any) -> None:
    if value is not None:
        _check_count("max_frames", value)
