"""Clips and posters for a page. A clip is copied where browsers can play it and re-encoded where they cannot."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from evqa.errors import EvqaError, VideoError

__all__ = ["CLIP_BUDGET", "ClipStore"]

#: Bytes that a clip on the page may have. A larger one is re-encoded, at most 480 pixels high.
CLIP_BUDGET = 16_000_000

_PLAYABLE = {
    ".mp4": {"h264", "av1", "vp9"},
    ".webm": {"vp8", "vp9", "av1"},
}


_CHUNK = 64  # frames decoded at a time: bounds memory
_MOST_FPS = 30.0
_SMALL_HEIGHT = 480  # of a clip that is made smaller
_SMALL_CRF = 30
_POSTER_SIDE = 320
_POSTER_QUALITY = 70


class ClipStore:
    """Puts each clip into the page's folder once.

    Args:
        folder: The page's folder.
        budget: Bytes that a clip may have; 0 leaves clips and posters out.
    """

    def __init__(self, folder: Path, *, budget: int = CLIP_BUDGET):
        self._folder = folder
        self._budget = budget
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
        if not self._budget or not video or not (video.get("bytes") or video.get("path")):
            return None
        key = video.get("path") or hashlib.sha256(video["bytes"]).hexdigest()
        if key not in self._names:
            try:
                self._names[key] = self._bring(video, video_id)
            except (EvqaError, OSError) as error:
                self.problems.append(f"clip {video_id}: {error}")
                self._names[key] = ""
        return self._names[key] or None

    def poster(self, video: Any, time: float, name: str) -> str | None:
        """Write the picture at a second, 320 pixels on its longer side at most.

        Args:
            video: As for :meth:`add`, which must have been called before.
            time: Second of the clip.
            name: The file, relative to the page.

        Returns:
            ``name``, or ``None`` where there is no clip or nothing that decodes it: the page then loads the clip at
            once, which it would otherwise do when the entry is looked at.
        """
        if self.add(video, name) is None:
            return None
        from PIL import Image

        from evqa.video import Clip

        try:
            clip = Clip(video)
            pixels = clip.frames([max(0.0, min(time, clip.info.duration - 1e-3))])[0]
        except (EvqaError, OSError):  # a clip that this machine cannot decode may still play in a browser
            return None
        picture = Image.fromarray(pixels)
        picture.thumbnail((_POSTER_SIDE, _POSTER_SIDE))
        (self._folder / name).parent.mkdir(exist_ok=True)
        picture.save(self._folder / name, quality=_POSTER_QUALITY)
        return name

    def _bring(self, video: Any, video_id: str) -> str:
        (self._folder / "clips").mkdir(parents=True, exist_ok=True)
        stem = "".join(c if c.isalnum() or c in "-_" else "_" for c in video_id)[:80] or "clip"
        while (self._folder / "clips" / f"{stem}.mp4").exists() or (self._folder / "clips" / f"{stem}.webm").exists():
            stem += "_"
        suffix = Path(video.get("path") or "clip.mp4").suffix.lower()
        size = len(video["bytes"]) if video.get("bytes") else os.stat(video["path"]).st_size
        if size <= self._budget and suffix in _PLAYABLE and _codec(video) in {None, *_PLAYABLE[suffix]}:
            target = self._folder / "clips" / f"{stem}{suffix}"
            if video.get("bytes"):
                target.write_bytes(video["bytes"])
            else:
                shutil.copyfile(video["path"], target)
            os.chmod(target, 0o644)
        else:
            target = self._folder / "clips" / f"{stem}.mp4"
            _encode(video, target, small=size > self._budget)
            if target.stat().st_size > self._budget:
                made = target.stat().st_size
                target.unlink()
                raise VideoError(f"it has {made:,} bytes even when made smaller, the page takes {self._budget:,}")
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


def _encode(video: Any, target: Path, *, small: bool) -> None:
    """Write the clip anew at a constant rate, so that what is shown at a second stays at that second."""
    from evqa.video import Clip, write_clip

    clip = Clip(video)
    rate = min(clip.info.fps, _MOST_FPS)
    times = np.arange(max(1, int(clip.info.duration * rate))) / rate
    chunks = (clip.frames(times[i : i + _CHUNK]) for i in range(0, len(times), _CHUNK))
    frames = (frame for chunk in chunks for frame in chunk)
    if small:
        write_clip(target, map(_smaller, frames), rate, crf=_SMALL_CRF)
    else:
        write_clip(target, frames, rate)


def _smaller(frame: np.ndarray) -> np.ndarray:
    from PIL import Image

    height, width = frame.shape[:2]
    if height <= _SMALL_HEIGHT:
        return frame
    return np.asarray(Image.fromarray(frame).resize((round(width * _SMALL_HEIGHT / height), _SMALL_HEIGHT)))
