"""Which frames are looked at: policies, by their promises."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evqa.video import (
    EveryN,
    Fps,
    RandomN,
    Uniform,
    VideoInfo,
    parse_policy,
)


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
