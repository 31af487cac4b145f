"""Clips for a page: copied where browsers can play them, re-encoded where they cannot."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from evqa.errors import EvqaError, VideoError

__all__ = ["ClipStore"]

_PLAYABLE = {
    ".mp4": {"h264", "av1", "vp9"},
    ".webm": {"vp8", "vp9", "av1"},
}


_CHUNK = 64  # frames decoded at a time: bounds memory
_MOST_FPS = 30.0


class ClipStore:
    """Puts each clip into the page's folder once.

    Args:
        folder: The page's folder.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._names: dict[str, str] = {}
        #: What went wrong, one sentence per clip.
        self.problems: list[str] = []

    def add(self, video: Any, video_id: str) -> str | None:
        """Bring in a clip.

        Args:
            video: ``{"path", "bytes"}`` as in a dataset row; ``None`` for no clip.
            video_id: Names the file.

        Returns:
            Its path relative to the page, or ``None`` if there is no clip or it cannot be read; the page then draws
            masks on black, and :attr:`problems` says why.
        """
        if not video or not (video.get("bytes") or video.get("path")):
            return None
        key = video.get("path") or hashlib.sha256(video["bytes"]).hexdigest()
        if key not in self._names:
            try:
                self._names[key] = self._bring(video, video_id)
            except (EvqaError, OSError) as error:
                self.problems.append(f"clip {video_id}: {error}")
                self._names[key] = ""
        return self._names[key] or None

    def _bring(self, video: Any, video_id: str) -> str:
        (self._folder / "clips").mkdir(parents=True, exist_ok=True)
        stem = "".join(c if c.isalnum() or c in "-_" else "_" for c in video_id)[:80] or "clip"
        while (self._folder / "clips" / f"{stem}.mp4").exists() or (self._folder / "clips" / f"{stem}.webm").exists():
            stem += "_"
        suffix = Path(video.get("path") or "clip.mp4").suffix.lower()
        if suffix in _PLAYABLE and _codec(video) in {None, *_PLAYABLE[suffix]}:
            target = self._folder / "clips" / f"{stem}{suffix}"
            if video.get("bytes"):
                target.write_bytes(video["bytes"])
            else:
                shutil.copyfile(video["path"], target)
            os.chmod(target, 0o644)
        else:
            target = self._folder / "clips" / f"{stem}.mp4"
            _encode(video, target)
        return f"clips/{target.name}"


def _codec(video: Any) -> str | None:
    """The codec's name; ``None`` if PyAV is not installed to tell."""
    try:
        import av
    except ImportError:
        return None
    import io

    try:
        with av.open(io.BytesIO(video["bytes"]) if video.get("bytes") else video["path"]) as container:
            if not container.streams.video:
                raise VideoError("the file has no picture", file=video.get("path"))
            return container.streams.video[0].codec_context.name
    except av.FFmpegError as error:
        raise VideoError(f"not readable ({error})", file=video.get("path")) from None


def _encode(video: Any, target: Path) -> None:
    """Write the clip anew at a constant rate, so that what is shown at a second stays at that second."""
    from evqa.video import Clip, write_clip

    clip = Clip(video)
    rate = min(clip.info.fps, _MOST_FPS)
    times = np.arange(max(1, int(clip.info.duration * rate))) / rate
    chunks = (clip.frames(times[i : i + _CHUNK]) for i in range(0, len(times), _CHUNK))
    write_clip(target, (frame for chunk in chunks for frame in chunk), rate)
