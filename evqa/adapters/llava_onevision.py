"""LLaVA-OneVision 1.5 (An et al., 2025) with its published code, and the native LLaVA-OneVision (Li et al., 2024)."""

from __future__ import annotations

from typing import Any

from evqa.adapters._chat import Prepared
from evqa.adapters._local import LocalAdapter, Request
from evqa.adapters.internvl import frame_limit, timed_images

__all__ = ["LlavaOnevision"]


class LlavaOnevision(LocalAdapter):
    """See :class:`LocalAdapter` for the arguments; the original baseline showed at most 128 frames at 1 fps.

    Neither knows a clock. 1.5 sees each frame as an image after a line with its time. The native one has a video
    input of its own, before which the times of all frames are listed; its processor brings frames to 384 x 384.

    1.5 is published with code of its own: it needs ``trust_remote_code=True`` and a ``revision``.
    """

    name = "llava_onevision"

    def __init__(
        self,
        model: str = "lmms-lab/LLaVA-OneVision-1.5-8B-Instruct",
        *,
        frames: str = "fps:1,max=128",
        max_side: int | None = 512,
        **options: Any,
    ):
        if options.get("trust_remote_code"):
            self.model_class = "AutoModelForCausalLM"  # what the published code registers
        super().__init__(model, frames=frames, max_side=max_side, **options)
        self._native = hasattr(self._processor, "video_token") and hasattr(self._processor, "vision_aspect_ratio")

    def images_per_entry(self) -> int:
        """Frames and option images."""
        return frame_limit(self._policy) + 4

    def video_content(self, entry: Prepared, request: Request) -> list[dict[str, Any]]:
        """See :meth:`LocalAdapter.video_content`."""
        if not self._native:
            return timed_images(entry, request)
        request.videos.append(entry.clip.pixels)
        times = ", ".join(f"{time:.1f}" for time in entry.clip.times)
        text = f"\n{len(entry.clip.times)} frames of the video are shown, at these seconds: {times}.\n"
        return [{"type": "video"}, {"type": "text", "text": text}]


ADAPTER = LlavaOnevision
