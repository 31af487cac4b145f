"""InternVL 3.5 (2025), native in transformers. It knows no clock: each frame is an image with its time in text."""

from __future__ import annotations

from typing import Any

from evqa.adapters._chat import Prepared
from evqa.adapters._local import LocalAdapter, Request

__all__ = ["InternVl"]


class InternVl(LocalAdapter):
    """See :class:`LocalAdapter` for the arguments.

    The processor brings every image to one tile of 448 x 448 pixels, as in training; ``tiles`` above 1 gives pictures
    more, in the grid that fits their shape best. The original baseline showed all frames at 1 fps, without a limit.

    Args:
        tiles: Most tiles of a frame or option image.
    """

    name = "internvl"

    def __init__(
        self,
        model: str = "OpenGVLab/InternVL3_5-8B-HF",
        *,
        frames: str = "fps:1,max=128",
        tiles: int = 1,
        **options: Any,
    ):
        self._tiles = tiles
        super().__init__(model, frames=frames, **options)

    def settings(self) -> dict[str, Any]:
        """See :meth:`Adapter.settings`."""
        return {**super().settings(), "tiles": self._tiles}

    def images_per_entry(self) -> int:
        """Frames and option images."""
        return frame_limit(self._policy) + 4

    def request(self, entry: Prepared, turns: Any) -> Request:
        """See :meth:`LocalAdapter.request`."""
        request = super().request(entry, turns)
        request.images_kwargs = {"crop_to_patches": self._tiles > 1, "max_patches": self._tiles}
        return request

    def video_content(self, entry: Prepared, request: Request) -> list[dict[str, Any]]:
        """See :meth:`LocalAdapter.video_content`."""
        return timed_images(entry, request)


def timed_images(entry: Prepared, request: Request) -> list[dict[str, Any]]:
    """Frames as images, each after a line with its number and time."""
    content: list[dict[str, Any]] = []
    for number, (time, pixels) in enumerate(zip(entry.clip.times, entry.clip.pixels, strict=True), start=1):
        content += [{"type": "text", "text": f"Frame {number} at {time:.1f} s: "}, {"type": "image"}]
        content.append({"type": "text", "text": "\n"})
        request.images.append(pixels)
    return content


def frame_limit(policy: Any) -> int:
    """The most frames that a sampling policy can give, or 768 if it has no limit."""
    return getattr(policy, "max_frames", None) or (policy.n if policy.name in ("uniform", "random") else 768)


ADAPTER = InternVl
