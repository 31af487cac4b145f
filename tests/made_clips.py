"""Clips of every kind that decoders disagree about, each with the truth about it; made once a session."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from fractions import Fraction

import av
import numpy as np
import pytest
import video_fixtures as fx

from evqa.video import (
    installed_backends,
)

REPOSITORY = pathlib.Path(__file__).parents[1]
SHARED = REPOSITORY.parent / "shared" / "data"
BACKENDS = (None, *installed_backends())
VFR = [i * 40 + i // 7 * 93 + i * i % 3 * 11 for i in range(60)]
MILLISECOND = Fraction(1, 1000)


def x264(text):
    return {"x264-params": text}


@dataclasses.dataclass
class Made:
    """A clip and the truth about it: its frames' times and barcodes (by default counted from 0)."""

    path: pathlib.Path
    times: np.ndarray
    numbers: np.ndarray | None = None
    shape: tuple[int, int] = (fx.HEIGHT, fx.WIDTH)
    turned: int = 0
    refused_by: tuple[str, ...] = ()

    def __post_init__(self):
        if self.numbers is None:
            self.numbers = np.arange(len(self.times))

    def barcode(self, pixels):
        return fx.number_of(np.rot90(pixels, -self.turned // 90))


def ticks(n=60, rate=25.0):
    return np.arange(n) / rate


OTHERS = ("decord", "torchcodec")
HEVC = {"x265-params": "log-level=none:bframes=3:keyint=20"}
LIVE = {"deadline": "realtime", "cpu-used": "8"}

MAKERS = {
    "b_frames": lambda d: Made(fx.make(d / "b.mp4", options=x264("bframes=3")), times=ticks()),
    "no_b_frames": lambda d: Made(fx.make(d / "p.mp4", options=x264("bframes=0")), times=ticks()),
    "open_gop": lambda d: Made(
        fx.make(d / "open.mp4", options=x264("open-gop=1:bframes=3:b-adapt=0:scenecut=0")),
        times=ticks(),
        refused_by=("decord",),
    ),
    "intra_refresh": lambda d: Made(
        fx.make(d / "refresh.mp4", options=x264("intra-refresh=1:bframes=0")), times=ticks(), refused_by=OTHERS
    ),
    "vfr_mp4": lambda d: Made(fx.make(d / "vfr.mp4", stamps=VFR, time_base=MILLISECOND), times=np.array(VFR) / 1000),
    "vfr_mkv": lambda d: Made(fx.make(d / "vfr.mkv", stamps=VFR, time_base=MILLISECOND), times=np.array(VFR) / 1000),
    "late_start": lambda d: Made(fx.make(d / "late.mkv", stamps=[i + 130 for i in range(60)]), times=ticks()),
    "edit_list": lambda d: Made(
        fx.remux(fx.make(d / "whole.mp4"), d / "cut.mp4", first=20, shift=-25 * 512),
        times=ticks(35),
        numbers=np.arange(25, 60),
        refused_by=OTHERS,
    ),
    "starts_inside_gop": lambda d: Made(
        fx.remux(fx.make(d / "all.mp4"), d / "inside.mkv", first=7),
        numbers=np.arange(20, 60),
        times=ticks(40),
        refused_by=OTHERS,
    ),
    "no_duration": lambda d: Made(
        fx.make(d / "live.webm", codec="libvpx-vp9", options=LIVE, container={"live": "1"}),
        times=ticks(),
        refused_by=("decord",),
    ),
    "hidden_frame": lambda d: Made(
        fx.hide(fx.make(d / "vp8.webm", codec="libvpx", options=LIVE), 10),
        times=np.delete(ticks(), 10),
        numbers=np.delete(np.arange(60), 10),
        refused_by=OTHERS,
    ),
    "fragments": lambda d: Made(
        fx.make(d / "frag.mp4", container={"movflags": "frag_keyframe+empty_moov"}), times=ticks()
    ),
    "hevc": lambda d: Made(
        fx.make(d / "hevc.mp4", codec="libx265", options=HEVC), times=ticks(), refused_by=("decord",)
    ),
    "mpeg_ts": lambda d: Made(fx.make(d / "clip.ts"), times=ticks(), refused_by=OTHERS),
    "avi": lambda d: Made(
        fx.make(d / "clip.avi", codec="mpeg4", options={"bf": "2"}), times=ticks(), refused_by=OTHERS
    ),
    "avi_without_times": lambda d: Made(
        fx.make(d / "h264.avi", options=x264("bframes=3")), times=ticks(), refused_by=OTHERS
    ),
    "odd_size": lambda d: Made(
        fx.make(d / "odd.mkv", pix_fmt="yuv444p", height=49, width=65), times=ticks(), shape=(49, 65)
    ),
    "turned": lambda d: Made(
        fx.make(d / "turned.mp4", rotate=90), times=ticks(), shape=(64, 48), turned=90, refused_by=("decord",)
    ),
    "one_frame": lambda d: Made(fx.make(d / "one.mp4", frames=1), times=ticks(1)),
    "six_fps": lambda d: Made(fx.make(d / "six.mp4", rate=6, frames=20), times=ticks(20, 6)),
    "ntsc": lambda d: Made(fx.make(d / "ntsc.mp4", rate=Fraction(30000, 1001)), times=ticks(60, 30000 / 1001)),
}


def link(path):
    """Where a symbolic link leads; empty if it is none, or is gone."""
    with contextlib.suppress(OSError):
        return os.readlink(path)
    return ""


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("clips"), {}

    def get(kind) -> Made:
        if kind not in made:
            if kind == "turned" and not hasattr(av.VideoStream, "set_display_rotation"):
                pytest.skip("this PyAV cannot write rotated clips")
            made[kind] = MAKERS[kind](folder)
        return made[kind]

    return get


@pytest.fixture(scope="session")
def plain(clip):
    return clip("b_frames").path
