"""Pixels at times: the right frame from every decoder on every kind of clip, and no way to hang the caller."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import math
import multiprocessing
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import av
import numpy as np
import pytest
import video_fixtures as fx
from hypothesis import given
from hypothesis import strategies as st

from evqa.errors import MissingDependencyError, VideoError
from evqa.video import (
    Clip,
    EveryN,
    Fps,
    RandomN,
    Uniform,
    VideoInfo,
    bitstream,
    installed_backends,
    isolation,
    parse_policy,
    probe,
    read_frames,
    write_clip,
)
from evqa.video import index as indexing

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


# ------------------------------------------------------------------------------------------- times
@pytest.mark.parametrize("kind", MAKERS)
def test_probe(clip, kind):
    made = clip(kind)
    for isolate in (True, False):
        info = probe(made.path, isolate=isolate)
        assert info.num_frames == len(made.times)
        np.testing.assert_allclose(info.timestamps, made.times, atol=1.1e-3 if kind == "ntsc" else 1e-6)
        assert info.timestamps[0] == 0
        assert not info.timestamps.flags.writeable
        assert (info.height, info.width) == made.shape
        assert info.constant_rate is (kind not in ("vfr_mp4", "vfr_mkv", "hidden_frame"))
        assert info.fps == pytest.approx(info.num_frames / info.duration)
        last = info.duration - info.timestamps[-1]
        assert 0.03 < last < 0.2
        assert info.path == str(made.path)
        assert info.rotation == made.turned


def test_positions():
    info = VideoInfo.from_times("x", np.array([0.0, 0.1, 0.3, 0.301]), 0.1, height=1, width=1)
    asked = [0, 0.05, 0.0989, 0.0991, 0.1, 0.2, 0.29, 0.30074, 0.30076, 0.4, 0.401, 0.5]
    assert info.positions(asked).tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 3, 3, 3, 3]
    assert info.positions(0.3).tolist() == [2]
    assert info.positions([]).tolist() == []
    assert info.positions([0.401], tolerance=0).tolist() == [3]
    with pytest.raises(VideoError, match=r"no frame at -0.5, 0.41 s: .* from 0 s to 0.401 s \[file x\]"):
        info.positions([0.2, -0.5, 0.41], tolerance=0)
    with pytest.raises(VideoError, match="finite"):
        info.positions([0, math.nan])
    with pytest.raises(VideoError, match="seconds"):
        info.positions("soon")
    assert pickle.loads(pickle.dumps(info)).num_frames == 4


def test_a_coarse_clock_does_not_hide_a_dropped_frame():
    def constant(times, tick):
        return VideoInfo.from_times("x", np.array(times), None, height=1, width=1, tick=tick).constant_rate

    assert constant([0, 0.033, 0.067, 0.1], 0.001)
    assert constant([0.0], 1.0)
    assert not constant([0, 0.04, 0.08, 0.12, 0.2, 0.24], 0.04)
    assert not constant([0, 0.033, 0.069, 0.1], 0.001)


def test_float32_times_find_their_frames(clip):
    info = probe(clip("ntsc").path)
    found = info.positions(info.timestamps.astype(np.float32).astype(float))
    assert found.tolist() == list(range(60))
    assert info.positions(np.round(info.timestamps, 3)).tolist() == list(range(60))


# ------------------------------------------------------------------------------------------ frames
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", MAKERS)
def test_each_frame_of_each_kind_of_clip_by_each_backend(clip, kind, backend):
    made = clip(kind)
    n = len(made.times)
    random = np.random.default_rng(n)
    orders = {
        "all": np.arange(n),
        "backwards": np.arange(n)[::-1],
        "last": np.array([n - 1]),
        "mixed": random.integers(0, n, 15),
        "sparse": np.unique(random.integers(0, n, 5)),
    }
    for name, order in orders.items():
        # Half of a frame's time in: on screen still, and far from where rounding could matter.
        times = made.times[order] + (0.015 if name != "all" else 0)
        if backend in made.refused_by:
            with pytest.raises(VideoError, match=rf"{backend}: .*backend=None"):
                read_frames(made.path, times, backend=backend)
            continue
        frames = read_frames(made.path, times, backend=backend)
        assert frames.shape == (len(order), *made.shape, 3)
        assert frames.dtype == np.uint8
        assert [made.barcode(pixels) for pixels in frames] == made.numbers[order].tolist(), name


def test_bitstream_facts():
    assert bitstream.is_hidden("vp8", b"\x00")
    assert not bitstream.is_hidden("vp8", b"\x10")
    # VP9: marker 10, profile 00, show_existing 0, key 0 / inter 1, show_frame, error resilient.
    assert bitstream.is_hidden("vp9", bytes([0b10000100, 0]))
    assert not bitstream.is_hidden("vp9", bytes([0b10000110, 0]))
    assert not bitstream.is_hidden("vp9", bytes([0b10001000, 0]))  # shows a frame decoded before
    assert not bitstream.is_hidden("vp9", bytes([0b10000100, 0b11000001]))  # several frames in one packet
    assert bitstream.is_hidden("vp9", bytes([0b10110010, 0]))  # profile 3
    assert not bitstream.is_hidden("vp9", b"")
    idr, slice_, recovery, waits = b"\x65", b"\x41", b"\x06\x06\x01\xc4\x80", b"\x06\x06\x01\x24\x80"
    for units, expected in (
        ([idr], True),
        ([slice_], False),
        ([recovery, slice_], True),
        ([waits, slice_], False),
        ([b"\x06\xff\x05\x01\x00" + recovery[1:], slice_], True),  # after a message of type 260
        ([recovery], False),
        ([], False),
    ):
        with_lengths = b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)
        with_codes = b"".join(b"\0\0\0\1" + unit + b"\x99" * 3 for unit in units)
        assert bitstream.clean_entry("h264", with_lengths, 4) is expected
        assert bitstream.clean_entry("h264", with_codes, None) is expected
    assert bitstream.clean_entry("hevc", b"\0\0\0\2\x2a\x01", 4)  # CRA
    assert not bitstream.clean_entry("hevc", b"\0\0\0\2\x02\x01", 4)  # TRAIL_R
    assert bitstream.clean_entry("vp9", b"", None)


def test_colours(plain):
    (pixels,) = read_frames(plain, [0.4])
    assert np.abs(pixels.astype(int) - fx.frame(10)).mean() < 12


def test_the_index_sees_what_the_decoders_do_not_say(clip):
    def trouble(kind):
        return indexing.build(str(clip(kind).path), "x").trouble

    assert trouble("b_frames") is None
    assert "key frames" in trouble("intra_refresh")
    assert "hidden" in trouble("hidden_frame")
    assert "not shown" in trouble("edit_list")
    index = indexing.build(str(clip("open_gop").path), "x")
    assert index.trouble is None
    assert not index.closed
    assert len(index.entries) == 3  # The recovery points are entry points, for all but the leading frames:
    assert index.group.tolist() == np.searchsorted(index.entries[1:, 0], index.stamps, side="right").tolist()


@pytest.mark.parametrize("isolate", [True, False])
def test_sources(plain, tmp_path, isolate):
    expected = read_frames(plain, [0.5, 0.1])
    data = plain.read_bytes()
    for source in (
        str(plain),
        {"path": str(plain), "bytes": None},
        data,
        memoryview(data),
        {"path": "elsewhere.mp4", "bytes": data},
    ):
        np.testing.assert_array_equal(read_frames(source, [0.5, 0.1], isolate=isolate), expected)
    assert probe(data, isolate=isolate).path == "<bytes>"
    assert probe({"path": "elsewhere.mp4", "bytes": data}, isolate=isolate).path == "elsewhere.mp4"
    if sys.platform == "linux":
        assert not [fd for fd in os.listdir("/proc/self/fd") if "evqa-clip" in _link(f"/proc/self/fd/{fd}")]


def _link(path):
    with contextlib.suppress(OSError):
        return os.readlink(path)
    return ""


def test_in_process_is_the_same(plain):
    times = [0.0, 2.39, 0.7, 0.7]
    np.testing.assert_array_equal(read_frames(plain, times, isolate=False), read_frames(plain, times))


def test_folder_of_frames(tmp_path):
    from PIL import Image

    names = []
    for i in (0, 5, 9):
        names.append(f"{i:05d}.png")
        Image.fromarray(fx.frame(i)).save(tmp_path / names[-1])
    folder = {"folder": str(tmp_path), "names": names, "times": [0.5, 1.0, 2.0]}
    info = probe(folder)
    assert (info.num_frames, info.height, info.width) == (3, fx.HEIGHT, fx.WIDTH)
    assert info.timestamps.tolist() == [0.5, 1.0, 2.0]
    assert info.duration == 2.75
    for isolate in (True, False):
        frames = read_frames(folder, [1.7, 0.5, 2.0], isolate=isolate)
        assert [fx.number_of(pixels) for pixels in frames] == [5, 0, 9]
    with pytest.raises(VideoError, match=r"no frame at 0 s"):
        read_frames(folder, [0.0])
    with pytest.raises(VideoError, match=r"'gone\.png'"):
        read_frames({**folder, "names": [*names[:2], "gone.png"]}, [2.0])
    with pytest.raises(VideoError, match="3 names, 2 times"):
        probe({**folder, "times": [0, 1]})
    with pytest.raises(VideoError, match="increase"):
        probe({**folder, "times": [0, 1, 1]})
    Image.fromarray(fx.frame(1, 60, 80)).save(tmp_path / names[2])
    with pytest.raises(VideoError, match="60 x 80"):
        read_frames(folder, [0.5, 2.0])
    assert read_frames(folder, [0.5, 2.0], size=(24, 32)).shape == (2, 24, 32, 3)


def test_sizes(plain):
    assert read_frames(plain, [0], max_side=32).shape == (1, 24, 32, 3)
    assert read_frames(plain, [0], max_side=500).shape == (1, 48, 64, 3)
    assert read_frames(plain, [0, 1], size=(30, 20)).shape == (2, 30, 20, 3)
    assert read_frames(plain, []).shape == (0, 48, 64, 3)
    for wrong in ({"max_side": 0}, {"size": (0, 3)}, {"size": (3,)}, {"size": (3, 3), "max_side": 3}):
        with pytest.raises(ValueError, match=r"size|max_side"):
            read_frames(plain, [0], **wrong)
    with pytest.raises(ValueError, match="timeout"):
        probe(plain, timeout=0)


def test_times_outside(plain):
    assert fx.number_of(read_frames(plain, [2.43])[0]) == 59
    for wrong in ([-0.01], [2.45], [0.1, 99.0]):
        with pytest.raises(VideoError, match=rf"no frame at .*{wrong[-1]:g} s.* 2.4 s"):
            read_frames(plain, wrong)
    assert fx.number_of(read_frames(plain, [99.0], tolerance=100)[0]) == 59
    with pytest.raises(VideoError, match=r"no frame at 2.41 s"):
        read_frames(plain, [2.41], tolerance=0)


def test_backend_names(plain, monkeypatch):
    with pytest.raises(ValueError, match="decord, pyav, torchcodec"):
        read_frames(plain, [0], backend="ffmpeg")
    with pytest.raises(VideoError, match="no_such_module"):
        read_frames(plain, [0], backend="no_such_module:Class")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for backend in (None, "decord", "pyav"):
        with pytest.raises(MissingDependencyError, match=r'pip install "evqa\[video\]"'):
            read_frames(plain, [0], backend=backend)


def test_a_backend_that_falls_short_is_an_error(plain):
    with pytest.raises(VideoError, match="too few frames"):
        read_frames(plain, [0, 1], backend="video_fixtures:OneShort")


def test_clip(plain):
    opened = Clip(plain)
    assert opened.info is opened.info
    frames, times = opened.sample("uniform:4")
    assert times.tolist() == opened.info.timestamps[[0, 20, 39, 59]].tolist()
    assert [fx.number_of(pixels) for pixels in frames] == [0, 20, 39, 59]
    assert opened.frames([1], max_side=8).shape == (1, 6, 8, 3)


def test_importing_loads_no_decoder():
    code = (
        "import sys, evqa.video; evqa.video.probe; "
        "print(sorted({'av', 'decord', 'torch', 'torchcodec', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ------------------------------------------------------------------------------------ broken files
@pytest.mark.parametrize("isolate", [True, False])
def test_broken_files(plain, tmp_path, isolate):
    data = plain.read_bytes()
    whole = fx.make(tmp_path / "front.mp4", container={"movflags": "+faststart"}).read_bytes()
    mkv = fx.make(tmp_path / "clip.mkv").read_bytes()
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    cases = {
        "empty.mp4": (b"", "empty"),
        "text.mp4": (b"this is no video\n" * 500, "not a video"),
        "list.mp4": (f"#EXTM3U\n#EXTINF:1,\nfile://{plain}\n#EXT-X-ENDLIST\n".encode(), "not a video"),
        "script.mp4": (b"ffconcat version 1.0\nfile front.mp4\n", "not a video"),
        "zeros.mp4": (bytes(5000), "not a video"),
        "no_index.mp4": (data[: len(data) // 2], rf"cut short: {len(data) - len(data) // 2} bytes|cut short"),
        "half.mp4": (whole[: len(whole) // 2], f"cut short: {len(whole) - len(whole) // 2} bytes"),
        "half.mkv": (mkv[: len(mkv) // 2], f"cut short: {len(mkv) - len(mkv) // 2} bytes"),
        "missing.mp4": (None, "no such file"),
        "pipe.mp4": (None, "not a regular file"),
        "folder.mp4": (None, "folder"),
    }
    for name, (content, message) in cases.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        for call in (probe, lambda path, **options: read_frames(path, [0], **options)):
            with pytest.raises(VideoError, match=message) as caught:
                call(path, isolate=isolate)
            assert caught.value.file == str(path)
    with pytest.raises(VideoError, match="only local files"):
        probe("https://example.org/clip.mp4", isolate=isolate)
    for wrong in (3, None, {"path": None}, {"bytes": "text"}, b""):
        with pytest.raises(VideoError, match=r"a clip is|the clip is empty"):
            probe(wrong, isolate=isolate)


def test_a_title_that_is_not_utf8_does_no_harm(tmp_path):
    path = tmp_path / "title.mp4"
    with av.open(str(fx.make(tmp_path / "plain.mp4"))) as given, av.open(str(path), "w") as out:
        out.metadata["title"] = "caf@@"
        stream = out.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    data = path.read_bytes()
    assert b"caf@@" in data
    path.write_bytes(data.replace(b"caf@@", b"caf\xe9\xe9"))
    for isolate in (True, False):
        assert probe(path, isolate=isolate).num_frames == 60


@pytest.mark.parametrize("filler", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_damage_inside(clip, tmp_path, backend, filler):
    """Where packets are destroyed, or hold no picture, a frame is right or an error: never a neighbour."""
    data = bytearray(clip("b_frames").path.read_bytes())
    with av.open(str(clip("b_frames").path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for at in (24, 31, 47):
        position, size = packets[at]
        nothing = (size - 4).to_bytes(4, "big") + b"\x0c" + b"\xff" * (size - 5)
        data[position : position + size] = nothing if filler else b"\xff" * size
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    info, truth, read = probe(path), {}, 0
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            with contextlib.suppress(av.error.FFmpegError):
                truth.update((round(picture.time, 6), picture) for picture in packet.decode())
    for number, second in enumerate(info.timestamps):
        with contextlib.suppress(VideoError):
            (pixels,) = read_frames(path, [second], backend=backend)
            # Frames that refer to a lost one look damaged, as they do in a player.
            expected = truth[round(second, 6)].to_ndarray(format="rgb24")
            assert np.abs(pixels.astype(int) - expected).mean() < 1, number
            read += 1
    assert (8 if backend in OTHERS else 40) <= read < 60


# --------------------------------------------------------------------------------------- isolation
def child_pids():
    return {child._process.pid for child in list(isolation._children) if child.alive}


def gone(pid):
    """Whether a process has ended (a zombie that nobody waits for has)."""
    for _ in range(300):
        try:
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.1)
    return False


def wait_for(path):
    for _ in range(600):
        if path.exists() and (text := path.read_text()):
            return text
        time.sleep(0.1)
    raise AssertionError(f"{path.name} never came")


linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def test_a_decoder_that_hangs_is_stopped(plain):
    before = child_pids()
    with pytest.raises(VideoError, match=r"decoding took longer than 1 s and was stopped .*b\.mp4") as caught:
        read_frames(plain, [0], backend="video_fixtures:Hanging", timeout=1)
    assert caught.value.file == str(plain)
    assert fx.number_of(read_frames(plain, [1])[0]) == 25
    for pid in before - child_pids():
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def test_a_decoder_that_crashes_is_an_error(plain):
    with pytest.raises(VideoError, match=r"killed by SIGSEGV while decoding \(decoder: last words\)"):
        read_frames(plain, [0], backend="video_fixtures:Crashing")
    with pytest.raises(VideoError, match="ended with code 3"):
        read_frames(plain, [0, 1], backend="video_fixtures:Leaving")
    assert fx.number_of(read_frames(plain, [1])[0]) == 25


def test_what_decoders_print_stays_out_of_the_terminal(plain, capfd):
    assert fx.number_of(read_frames(plain, [1], backend="video_fixtures:Noisy")[0]) == 25
    with pytest.raises(VideoError, match=r"RuntimeError: this decoder is broken \(decoder: a complaint \| another\)"):
        read_frames(plain, [0], backend="video_fixtures:Complaining")
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_an_idle_child_that_is_killed_is_not_noticed(plain):
    read_frames(plain, [0])
    pids = child_pids()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert fx.number_of(read_frames(plain, [1])[0]) == 25
    assert not pids & child_pids()


def test_a_busy_child_that_is_killed_is_an_error(plain, tmp_path, monkeypatch):
    monkeypatch.setenv("EVQA_TEST_NOTE", str(tmp_path / "note"))
    isolation.shutdown()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(read_frames, plain, [0], backend="video_fixtures:Hanging", timeout=None)
        os.kill(int(wait_for(tmp_path / "note")), signal.SIGKILL)
        with pytest.raises(VideoError, match="killed by SIGKILL"):
            waiting.result(60)
    assert fx.number_of(read_frames(plain, [1])[0]) == 25


def test_threads_and_their_limit(plain):
    numbers = [number * 7 % 60 for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        frames = list(pool.map(lambda number: read_frames(plain, [number / 25])[0], numbers))
    assert [fx.number_of(pixels) for pixels in frames] == numbers
    assert len(child_pids()) <= isolation._MOST


def test_no_descriptors_are_left_open(plain):
    def count():
        return len(os.listdir("/proc/self/fd" if sys.platform == "linux" else "/dev/fd"))

    isolation.shutdown()
    before = count()
    for _ in range(3):
        read_frames(plain.read_bytes(), [0])
        with pytest.raises(VideoError):
            read_frames(plain, [0], backend="video_fixtures:Crashing")
    read_frames(plain.read_bytes(), [0])
    read_frames(plain, [0])  # The child has put the bytes away before it takes another request.
    if sys.platform == "linux":
        (pid,) = child_pids()
        assert not [fd for fd in os.listdir(f"/proc/{pid}/fd") if "evqa-clip" in _link(f"/proc/{pid}/fd/{fd}")]
    isolation.shutdown()
    assert count() == before


def _read_in_child(path, queue):
    queue.put([fx.number_of(pixels) for pixels in read_frames(path, [0, 1, 2])])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_inside_daemonic_workers(plain, method):
    read_frames(plain, [0])  # The parent has a child of its own, which the workers must leave alone.
    pids = child_pids()
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    workers = [context.Process(target=_read_in_child, args=(plain, queue), daemon=True) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert [queue.get(timeout=120) for _ in workers] == [[0, 25, 50]] * 2
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert pids <= child_pids()
    assert fx.number_of(read_frames(plain, [1])[0]) == 25
    assert pids <= child_pids()


def test_a_fork_lets_go_of_the_children(plain):
    read_frames(plain, [0])
    sockets = [child._socket.fileno() for child in isolation._children]
    pid = os.fork()
    if not pid:
        closed = 0
        for descriptor in sockets:
            try:
                os.fstat(descriptor)
            except OSError:
                closed += 1
        os._exit(0 if closed == len(sockets) > 0 and not isolation._children else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert fx.number_of(read_frames(plain, [1])[0]) == 25


def test_a_fork_during_a_request(plain, tmp_path, monkeypatch):
    monkeypatch.setenv("EVQA_TEST_NOTE", str(tmp_path / "note"))
    isolation.shutdown()
    caught = []

    def wait():
        try:
            read_frames(plain, [0], backend="video_fixtures:Hanging", timeout=None)
        except VideoError as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    busy = int(wait_for(tmp_path / "note"))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    worker = context.Process(target=_read_in_child, args=(plain, queue), daemon=True)
    worker.start()
    assert queue.get(timeout=120) == [0, 25, 50]
    worker.join(60)
    os.kill(busy, 0)  # The forked process has not ended what it does not own.
    os.kill(busy, signal.SIGKILL)
    thread.join(60)
    assert caught


PARENT = """
import os, sys, threading
sys.path[:0] = {paths!r}
from evqa.video import isolation, read_frames
path, busy = sys.argv[1:]
if busy == "busy":
    threading.Thread(
        target=read_frames, args=(path, [0]), kwargs=dict(backend="video_fixtures:Hanging", timeout=None)
    ).start()
else:
    read_frames(path, [0])
    print([child._process.pid for child in isolation._children][0], flush=True)
if busy == "leaving":
    sys.stdin.read()
    sys.exit(0)
threading.Event().wait()
"""


@linux
@pytest.mark.parametrize("state", ["idle", "busy", "leaving"])
def test_a_child_ends_with_its_parent(plain, tmp_path, monkeypatch, state):
    monkeypatch.setenv("EVQA_TEST_NOTE", str(tmp_path / "note"))
    code = PARENT.format(paths=[str(REPOSITORY), str(REPOSITORY / "tests")])
    command = [sys.executable, "-c", code, str(plain), state]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        try:
            pid = int(wait_for(tmp_path / "note") if state == "busy" else parent.stdout.readline())
            os.kill(pid, 0)
            if state == "leaving":
                parent.stdin.close()
                parent.wait(60)
        finally:
            parent.kill()
    assert gone(pid)


# ---------------------------------------------------------------------------------------- policies
def synthetic(gaps, name="clip.mp4"):
    times = np.concatenate([[0], np.cumsum(gaps[:-1])])
    return VideoInfo.from_times(name, times, gaps[-1], height=10, width=10)


clips = st.lists(st.floats(0.001, 3), min_size=1, max_size=120).map(synthetic)
counts = st.integers(1, 200)
caps = st.none() | counts
policies = st.one_of(
    st.builds(Fps, st.floats(1e-7, 2000), caps),
    st.builds(Uniform, counts),
    st.builds(EveryN, counts, caps),
    st.builds(RandomN, counts, st.integers(-5, 2**70)),
)


@given(clips, policies)
def test_policies_choose_frames_of_the_clip(info, policy):
    times = policy.times(info)
    assert 1 <= len(times) <= info.num_frames
    assert (np.diff(times) > 0).all()
    assert np.isin(times, info.timestamps).all()
    assert info.positions(times).tolist() == policy.positions(info).tolist()
    cap = getattr(policy, "max_frames", None)
    assert cap is None or len(times) <= cap
    np.testing.assert_array_equal(times, policy.times(info))
    assert parse_policy(str(policy)) == policy
    json.dumps(policy.describe())


@given(clips, counts)
def test_uniform_and_random_counts(info, n):
    for policy in (Uniform(n), RandomN(n)):
        assert len(policy.times(info)) == min(n, info.num_frames)
    chosen = Uniform(n).positions(info)
    if n > 1:
        assert (chosen[0], chosen[-1]) == (0, info.num_frames - 1)
    if len(chosen) > 2:
        assert np.ptp(np.diff(chosen)) <= 1
    drawn = RandomN(n).positions(info)
    part = info.num_frames / len(drawn)
    for i, number in enumerate(drawn):
        assert math.floor(i * part + 1e-9) <= number < math.floor((i + 1) * part + 1e-9)


@given(clips, st.floats(0.01, 100))
def test_fps_is_the_frame_on_screen_at_each_tick(info, rate):
    ticks = np.arange(max(1, math.ceil(info.duration * rate - 1e-6))) / rate
    expected = np.unique(info.positions(np.minimum(ticks, info.duration)))
    chosen = Fps(rate).positions(info)
    # On the boundary itself a rounding error may choose either neighbour; nothing else may differ.
    close = np.abs(ticks[:, None] - info.starts()).min(axis=1) < 1e-5 if len(ticks) else np.zeros(0, bool)
    if not close[1:].any():
        assert chosen.tolist() == expected.tolist()
    assert chosen[0] == 0


@given(clips, counts, st.integers(1, 50))
def test_a_cap_spreads_over_the_whole_clip(info, step, cap):
    for policy in (EveryN(step), Fps(step / 7)):
        free = policy.positions(info)
        capped = dataclasses.replace(policy, max_frames=cap).positions(info)
        expected = free if len(free) <= cap else Uniform(cap).positions(info)
        assert capped.tolist() == expected.tolist()


def test_policies_by_hand():
    info = synthetic([0.04] * 100)
    assert Fps(1).times(info).tolist() == info.timestamps[[0, 25, 50, 75]].tolist()
    assert Fps(1, 2).positions(info).tolist() == [0, 99]
    assert Fps(50).positions(info).tolist() == list(range(100))
    assert Fps(0.001).positions(info).tolist() == [0]
    assert Uniform(5).positions(info).tolist() == [0, 25, 50, 74, 99]
    assert Uniform(1).positions(info).tolist() == [49]
    assert EveryN(40).positions(info).tolist() == [0, 40, 80]
    assert EveryN(1, max_frames=3).positions(info).tolist() == [0, 50, 99]
    assert Fps(30000 / 1001).positions(synthetic([1001 / 30000] * 50)).tolist() == list(range(50))


def test_random_depends_on_seed_and_clip_alone():
    one, other = synthetic([0.1] * 90, "/a/one.mp4"), synthetic([0.1] * 90, "/a/two.mp4")
    moved = synthetic([0.1] * 90, "/elsewhere/one.mp4")
    assert RandomN(8, 3).positions(one).tolist() == RandomN(8, 3).positions(moved).tolist()
    assert RandomN(8, 3).positions(one).tolist() != RandomN(8, 3).positions(other).tolist()
    assert RandomN(8, 3).positions(one).tolist() != RandomN(8, 4).positions(one).tolist()
    # Golden: a change of the draw would change what published runs saw.
    assert RandomN(8, 3).positions(one).tolist() == [8, 19, 32, 42, 50, 63, 76, 86]


def test_policy_text():
    assert parse_policy("fps:0.5") == Fps(0.5)
    assert parse_policy(" FPS: 2 , max = 64 ") == Fps(2.0, 64)
    assert parse_policy("uniform:32") == Uniform(32)
    assert parse_policy("every:5,max=8") == EveryN(5, 8)
    assert parse_policy("random:8,seed=-7") == RandomN(8, -7)
    assert parse_policy(Uniform(3)) == Uniform(3)
    assert Fps(1, 8).describe() == {"policy": "fps", "rate": 1.0, "max_frames": 8}
    for wrong in ("", "fps", "fps:", "fps:x", "fps:1,2", "fps:1,seed=3", "fps:1,max=3,max=4", "uniform:1.5", "all:1"):
        with pytest.raises(ValueError, match="fps:RATE"):
            parse_policy(wrong)
    for wrong in ("fps:0", "fps:nan", "fps:-1", "fps:1,max=0", "uniform:0", "every:0", "random:0"):
        with pytest.raises(ValueError, match=r"at least|above"):
            parse_policy(wrong)
    for wrong in (lambda: Uniform(True), lambda: EveryN(2.0), lambda: RandomN(3, 1.5), lambda: Fps(True)):
        with pytest.raises(ValueError, match="got"):
            wrong()


# ------------------------------------------------------------------------------------------ writer
def test_write_clip(tmp_path):
    path = tmp_path / "out.mp4"
    write_clip(path, (fx.frame(i) for i in range(50)), 12.5)
    info = probe(path)
    assert (info.num_frames, info.height, info.width) == (50, fx.HEIGHT, fx.WIDTH)
    assert info.duration == pytest.approx(4)
    assert info.constant_rate
    for backend in BACKENDS:
        frames = read_frames(path, info.timestamps, backend=backend)
        assert [fx.number_of(pixels) for pixels in frames] == list(range(50))
        assert np.abs(frames[7].astype(int) - fx.frame(7)).mean() < 14
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert next(container.decode(video=0)).colorspace == 1  # BT.709
        assert "creation_time" not in {**container.metadata, **stream.metadata}
    head = path.read_bytes()
    assert head.index(b"moov") < head.index(b"mdat")


def test_write_clip_colours(tmp_path):
    flat = np.broadcast_to(np.array([200, 60, 30], np.uint8), (4, 48, 64, 3))
    write_clip(tmp_path / "flat.mp4", flat, 5)
    for backend in BACKENDS:
        assert np.abs(read_frames(tmp_path / "flat.mp4", [0.5], backend=backend)[0].astype(int) - flat[0]).max() <= 4


def test_write_clip_is_deterministic(tmp_path):
    frames = np.stack([fx.frame(i) for i in range(20)])
    write_clip(tmp_path / "a.mp4", frames, Fraction(30000, 1001))
    write_clip(tmp_path / "b.mp4", frames, 30000 / 1001)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_write_clip_odd_sizes_grow_by_repetition(tmp_path):
    write_clip(tmp_path / "odd.mp4", [fx.frame(i, 49, 65) for i in range(3)], 6, crf=4)
    frames = read_frames(tmp_path / "odd.mp4", [0, 0.4])
    assert frames.shape == (2, 50, 66, 3)
    assert np.abs(frames[0, -1].astype(int) - frames[0, -2]).mean() < 12


def test_write_clip_errors(tmp_path):
    path = tmp_path / "out.mp4"
    good = fx.frame(0)
    cases = [
        ([], "at least one"),
        ([good, fx.frame(0, 50, 64)], "frame 1 is"),
        ([good.astype(float)], "uint8"),
        ([good[..., 0]], "uint8"),
        (np.zeros((2, 0, 4, 3), np.uint8), "uint8"),
    ]
    for frames, message in cases:
        with pytest.raises(VideoError, match=message) as caught:
            write_clip(path, frames, 5)
        assert caught.value.file == str(path)
    for settings in ({"fps": 0}, {"fps": -3}, {"fps": 5, "crf": 60}):
        with pytest.raises(ValueError, match=r"fps|crf"):
            write_clip(path, [good], **settings)
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------- real clips
REAL = sorted(
    path
    for folder in ("videos", "st_evidence_mini/st_evidence_gen/videos_6fps")
    if (SHARED / folder).is_dir()
    for path in (SHARED / folder).iterdir()
    if path.suffix in (".mp4", ".webm")
)


@pytest.mark.skipif(not REAL, reason="the real clips are not here")
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_real_clips(path):
    info = probe(path)
    chosen = np.random.default_rng(0).permutation(info.num_frames)[:10].tolist()
    chosen += [info.num_frames - 1, 0]
    truth = {}
    with av.open(str(path)) as container:
        for number, picture in enumerate(container.decode(video=0)):
            if number in chosen:
                truth[number] = picture.to_ndarray(format="rgb24")
    assert number + 1 == info.num_frames
    for backend in BACKENDS:
        if path.name == "no_duration.webm" and backend == "decord":
            continue  # decord cannot open it.
        frames = read_frames(path, info.timestamps[chosen], backend=backend)
        for number, pixels in zip(chosen, frames, strict=True):
            assert np.abs(pixels.astype(int) - truth[number]).mean() < 0.5, (backend, number)


@pytest.mark.skipif(not REAL, reason="the real clips are not here")
def test_real_facts():
    by_name = {path.name: path for path in REAL}
    six = probe(by_name["judo.mp4"])
    assert (six.num_frames, six.height, six.width, six.fps) == (16, 480, 854, pytest.approx(6))
    unknown = probe(by_name["no_duration.webm"])
    assert unknown.num_frames == 74
    assert unknown.duration == pytest.approx(4.938)
