"""Pixels at given seconds out of a clip.

>>> from evqa.video import probe, read_frames, parse_policy
>>> info = probe("clip.mp4")  # doctest: +SKIP
>>> frames = read_frames("clip.mp4", parse_policy("fps:1,max=128").times(info))  # doctest: +SKIP

Time is seconds from the first presented frame. The frame at time ``t`` is the one on screen at ``t``: the
last whose timestamp is not after ``t``. Timestamps come from the clip's own presentation timestamps, so a
variable frame rate, a late start or a missing duration changes nothing; :mod:`evqa.video.index` says how they
are read, :mod:`evqa.video.backends` how pixels are found for them, and :mod:`evqa.video.isolation` why a
broken file or a decoder that hangs costs one :class:`~evqa.errors.VideoError` and nothing else.

Importing this package imports no decoder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evqa._lazy import attach

if TYPE_CHECKING:
    from evqa.video.backends import installed_backends
    from evqa.video.clip import Clip, probe, read_frames
    from evqa.video.info import VideoInfo
    from evqa.video.sampling import EveryN, Fps, Policy, RandomN, Uniform, parse_policy
    from evqa.video.writer import write_clip

__all__ = [
    "Clip",
    "EveryN",
    "Fps",
    "Policy",
    "RandomN",
    "Uniform",
    "VideoInfo",
    "installed_backends",
    "parse_policy",
    "probe",
    "read_frames",
    "write_clip",
]

_HOMES = {
    "Clip": "clip",
    "EveryN": "sampling",
    "Fps": "sampling",
    "Policy": "sampling",
    "RandomN": "sampling",
    "Uniform": "sampling",
    "VideoInfo": "info",
    "installed_backends": "backends",
    "parse_policy": "sampling",
    "probe": "clip",
    "read_frames": "clip",
    "write_clip": "writer",
}

__getattr__, __dir__ = attach(__name__, _HOMES)
