"""Pixels at times: the right frame from every decoder on every kind of clip; broken files; writing clips."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import pickle
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
import video_fixtures as fx
from made_clips import BACKENDS, MAKERS, OTHERS, REPOSITORY, SHARED, clip, link, plain

from evqa.errors import MissingDependencyError, VideoError
from evqa.video import (
    Clip,
    VideoInfo,
    bitstream,
    probe,
    read_frames,
    write_clip,
)
from evqa.video import index as indexing

__all__ = ["clip", "plain"]  # fixtures


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
        assert not [fd for fd in os.listdir("/proc/self/fd") if "evqa-clip" in link(f"/proc/self/fd/{fd}")]


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
