"""Decoding in child processes: a decoder that hangs or dies costs one error, and the caller nothing."""

from __future__ import annotations

import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import video_fixtures as fx
from made_clips import REPOSITORY, clip, link, plain

from evqa.errors import VideoError
from evqa.video import isolation, read_frames

__all__ = ["clip", "plain"]  # fixtures


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
        assert not [fd for fd in os.listdir(f"/proc/{pid}/fd") if "evqa-clip" in link(f"/proc/{pid}/fd/{fd}")]
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

__all__ = ["clip", "plain"]  # fixtures; plain is made of clip
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
